#!/usr/bin/env bash
# The holes of a data file show in the map of a few short runs and of any long
# one, but a map of very many short runs is not worth asking the file for each.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires nbdinfo --version
requires strace -V
cd "$tmp"

# Every other cluster is allocated, but a hole in the data file; what lies
# between is data there, but not in use.  Then comes 2 MiB in one run, a hole.
pairs ()
{
    "$PYTHON" - "$lib" "$1" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
n = int (sys.argv[2])
img = mkimage.Image (64 << 20, cluster_bits=12, data_file="x.data")
for gc in [*range (0, 2 * n, 2), *range (8192, 8192 + 512)]:
    img.entry (gc, 1 << 63 | gc << 12)
img.write ("x.qcow2")
with open ("x.data", "wb") as f:
    for gc in range (1, 2 * n, 2):
        f.seek (gc << 12)
        f.write (b"x" * 4096)
    f.truncate (64 << 20)
END
}

pairs 10
nbdkit -U - -r --filter="$qcow2ext" file x.qcow2 \
       --run 'nbdinfo --map --totals "$uri"' > out
cat out
[ "$(awk '{ print $4 }' out)" = "hole,zero" ] || fail "few: holes not seen"

pairs 4000
# A sanitizer's leak check does not work under strace.
ASAN_OPTIONS=detect_leaks=0 strace -f -o trace -e trace=lseek \
       nbdkit -U - -r --filter="$qcow2ext" file x.qcow2 \
       --run 'nbdinfo --map "$uri"' > out
tail -3 out
# The long run and what follows it, which is unallocated, are one.
[ "$(tail -1 out | awk '{ print ($1 < 33554432), $1 + $2, $4 }')" \
      = "1 67108864 hole,zero" ] || fail "many: the long run's holes"
[ "$(grep -c lseek trace)" -lt 1000 ] || fail "the file was asked too often"
