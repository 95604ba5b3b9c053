#!/usr/bin/env bash
# The benchmark runs, and what it writes is well-formed.  No time is judged.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires qemu-nbd --version
requires nbdcopy --version
load=$abs_top_builddir/tests/bench/load
[ -x "$load" ] || fail "$load does not exist: make check builds it"
cd "$tmp"

names='disk/pair-raw/read-4k-4c disk/internal/write-1m-1c
       disk/luks/read-4k-1c disk/internal/first-flush16-4k zstd/copy zlib/seq-4k-d16 open/pair-64t
       zstd/into zlib/storm-64k-50c open/pair-first-write far/map-64g disk/direct/read-4k-1c'
# shellcheck disable=SC2086
"$PYTHON" "$abs_top_srcdir/tests/bench/bench.py" \
    --filter="$qcow2ext" --load="$load" --dir="$tmp" --memory="$tmp" \
    --rounds=2 --seconds=0.05 --size=16 --out=out $names
cat out/bench.md
! compgen -G 'q2x-bench-*' || fail "files were left"

# shellcheck disable=SC2086
"$PYTHON" - $names <<'END'
import json, sys
import xml.etree.ElementTree as tree
report = json.load (open ("out/bench.json"))
names = sorted (w["name"] for w in report["workloads"])
assert names == sorted (sys.argv[1:]), names
for w in report["workloads"]:
    servers = {"qemu-nbd", "qcow2ext"}
    if w["name"] == "zstd/into":
        servers.add ("qemu-img")
    elif not w["name"].startswith (("far/", "disk/direct/")):
        servers.add ("file")
    assert set (w["servers"]) >= servers, w
    for s in w["servers"].values ():
        assert len (s["values"]) == 2 and min (s["values"]) > 0, w
        assert s["memory_kib"] > 1000, w
    assert w["ratios"]["qemu-nbd"]["min"] > 0, w
svg = tree.parse ("out/bench.svg").getroot ()
assert sum (t.text == "zstd/copy" for t in svg.iter ()) == 1
END

# What runs found can be put together.
"$PYTHON" "$abs_top_srcdir/tests/bench/bench.py" \
    --merge out/bench.json out/bench.json --out=again > /dev/null
cmp out/bench.json again/bench.json

# What fails is an error.
"$PYTHON" "$abs_top_srcdir/tests/bench/bench.py" \
    --filter="$qcow2ext" --load=/bin/false --dir="$tmp" --memory="$tmp" \
    --rounds=1 --size=16 --out=out open/pair-64t && fail "failed unnoticed"
exit 0
