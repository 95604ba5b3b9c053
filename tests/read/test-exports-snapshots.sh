#!/usr/bin/env bash
# With qcow2ext-exports=all each internal snapshot is an export beside the disk;
# nbdinfo --list shows its name, date and VM clock.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires nbdinfo --version
requires_nbd_module
cd "$tmp"

# 2021-03-04 05:06:07 UTC; 1 h 2 min 3 s of VM clock.
"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
img = mkimage.Image (1 << 20)
for i in range (16):
    img.data (i, 7)
img.snapshot ("1", "before", date=(1614834367, 5000), clock=3723 * 10**9)
img.data (3, 8)
img.snapshot ("2", "after the upgrade\n\033[2J", size=2 << 20)
img.data (4, 9)
img.write ("x.qcow2")
END

serve s -r --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
nbdinfo --list --json "$(uri s)" | tee list.json
"$PYTHON" - <<'END'
import json
e = {x["export-name"]: x for x in json.load (open ("list.json"))["exports"]}
assert len (e) == 3, e.keys ()
assert e[""]["export-size"] == 1 << 20
assert e["snapshot:1"]["export-size"] == 1 << 20
assert e["snapshot:2"]["export-size"] == 2 << 20
d = e["snapshot:1"].get ("description", "")
assert "before" in d, d
assert "2021-03-04" in d, d
assert "1:02:03" in d, d
# What could forge a line or steer a terminal is masked.
assert '"after the upgrade??[2J"' in e["snapshot:2"].get ("description", "")
END

name ()
{
    echo "nbd+unix:///$1?socket=$tmp/s.sock"
}
read_at ()
{
    "$PYTHON" "$lib/check-reads.py" "$(name "$1")" "$2"
}
read_at snapshot:1 0:1M=7
read_at snapshot:before 0:1M=7
read_at snapshot:2 192K:64K=8
read_at snapshot:2 1M:1M=zero
read_at "" 192K:64K=8
read_at "" 256K:64K=9
for none in none 1 snapshot:3 snapshot: bitmap:1 Snapshot:1; do
    expect_fail '.' nbdinfo --size "$(name $none)"
done

# All of them at the same time.
nbdsh -c '
hs = []
for name in ("snapshot:1", "snapshot:2", "") * 3:
    h = nbd.NBD ()
    h.set_export_name (name)
    h.connect_unix ("s.sock")
    hs.append (h)
third = [bytes (h.pread (16, 196608))[:4] for h in hs]
assert third == [b"0007", b"0008", b"0008"] * 3, third
fourth = [bytes (h.pread (16, 262144))[:4] for h in hs]
assert fourth == [b"0007", b"0007", b"0009"] * 3, fourth
'
stop s

# Without the parameter there is one export.
serve s -r --filter="$qcow2ext" file x.qcow2
nbdinfo --list --json "$(uri s)" > list.json
"$PYTHON" -c 'import json
assert len (json.load (open ("list.json"))["exports"]) == 1'
stop s
