#!/usr/bin/env bash
# NBD_CMD_CACHE over more compressed clusters than the cache holds succeeds, and
# what is read after it is right.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mixed_file ref.raw 12582912
for cluster in 4096 65536 2097152; do
    rm -f x.qcow2
    qemu-img convert -c -f raw -O qcow2 -o cluster_size=$cluster ref.raw \
             x.qcow2
    for size in 1M 4M; do
        serve s -r --filter="$qcow2ext" file x.qcow2 \
              qcow2ext-decoded-cache-size=$size
        timeout 60 "$PYTHON" - "$(uri s)" <<'END'
import nbd, sys
ref = open ("ref.raw", "rb").read ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
size = h.get_size ()
assert size == len (ref)
h.cache (size, 0)
assert h.pread (size, 0) == ref
# Several at once want all of it.
cookies = [h.aio_cache (size - i * 4096, i * 4096) for i in range (8)]
while h.aio_in_flight ():
    h.poll (-1)
for c in cookies:
    assert h.aio_command_completed (c)
for at in range (0, size, 1 << 20):
    assert h.pread (5000, at) == ref[at:at + 5000]
h.shutdown ()
END
        stop s
    done
done
