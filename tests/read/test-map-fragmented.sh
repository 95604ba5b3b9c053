#!/usr/bin/env bash
# A pair whose entries alternate between data and zeros, with a data file that
# has no hole: the map must not look for a hole through the rest of the file
# again for each entry.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires_nbd_module

# tmpfs looks for holes page by page.
dir=$(mktemp -d /dev/shm/q2x-XXXXXXXX) || exit 77
cleanup_fn rm -rf "$dir"
[ "$(stat -f -c %T "$dir")" = tmpfs ] || exit 77
[ "$(df --output=avail -B1M "$dir" | tail -1)" -ge 4096 ] || exit 77
[ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" \
      -ge $((4 << 20)) ] || exit 77
cd "$dir"
head -c 1G /dev/zero > x.data

for raw in True False; do
    "$PYTHON" - "$lib" $raw <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
img = mkimage.Image (1 << 30, cluster_bits=12, data_file="x.data",
                     raw=sys.argv[2] == "True")
for gc in range (1 << 18):
    img.entry (gc, 1 << 63 | gc << 12 if gc % 2 == 0 else mkimage.ZERO)
img.write ("x.qcow2")
END
    serve s -r --filter="$qcow2ext" file x.qcow2
    "$PYTHON" - "$(uri s)" <<'END'
import nbd, sys
h = nbd.NBD ()
h.add_meta_context (nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri (sys.argv[1])
at = zeros = 0
def extents (context, offset, entries, error):
    global at, zeros
    for length, flags in zip (entries[::2], entries[1::2]):
        if flags & nbd.STATE_ZERO:
            zeros += length
        at += length
    return 0
while at < 1 << 30:
    before = at
    h.block_status ((1 << 30) - at, at, extents)
    assert at > before
assert zeros >= 1 << 29, zeros
END
    # Far more than it takes, far less than it took.
    ms=$(cpu_ms s)
    echo "$ms ms of processor time"
    [ -n "$QCOW2EXT_TEST_UNDER" ] || [ "$ms" -lt 15000 ] || fail "too slow"
    stop s
done
