#!/usr/bin/env bash
# NBD_CMD_CACHE over compressed, plain and unallocated ranges succeeds, and reads
# after it, and readahead on top of it, give the same data.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mixed_file ref.raw 4194304
for opts in compression_type=zlib compression_type=zstd \
            compression_type=zlib,cluster_size=2M; do
    rm -f x.qcow2
    qemu-img convert -c -f raw -O qcow2 -o $opts ref.raw x.qcow2
    qemu-io -f qcow2 -c 'write -P 5 1M 100k' -c 'write -z 2M 128k' x.qcow2 \
            > /dev/null
    qemu-img convert -O raw x.qcow2 now.raw
    serve s -r --filter="$qcow2ext" file x.qcow2
    nbdsh -u "$(uri s)" -c '
assert h.can_cache ()
ref = open ("now.raw", "rb").read ()
for offset, n in ((0, 1), (0, 1 << 20), (12345, 54321), (1 << 20, 1 << 21),
                  (h.get_size () - 1, 1), (0, h.get_size ())):
    h.cache (n, offset)
    assert h.pread (n, offset) == ref[offset:offset + n]
# Asked for from everywhere at once.
cookies = [h.aio_cache (65536, i * 65536) for i in range (64)]
while h.aio_in_flight ():
    h.poll (-1)
for c in cookies:
    assert h.aio_command_completed (c)
'
    stop s
    same x.qcow2 now.raw -- --connections 4
    # shellcheck disable=SC2016
    timeout 60 nbdkit -r -U - --filter=readahead --filter="$qcow2ext" \
            file x.qcow2 --run 'check_disk "$uri" now.raw'
done
