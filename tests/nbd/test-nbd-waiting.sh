#!/usr/bin/env bash
# Beside 30 writers of whole blocks that never pause, to a store that takes 20 ms
# for each, a write to a part of a block ends, and so does a flush, which writes
# parts of blocks to the image: first come, first served.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"

beside ()
{
    timeout -k 5 200 "$PYTHON" "$lib/beside-writers.py" "$(uri s)"
}
slow=(--filter=blocksize-policy --filter=delay)
blocks=(blocksize-minimum=4096 blocksize-preferred=4096
        blocksize-maximum=32M blocksize-error-policy=error wdelay=20ms)

# The data on a server.
new_image -o data_file=x.data x.qcow2 8M
truncate -s 8M x.data
serve far -t 40 "${slow[@]}" file x.data "${blocks[@]}"
serve s -t 40 --filter="$qcow2ext" file x.qcow2 \
      qcow2ext-data-file="$(uri far)"
beside
stop s
stop far
clean

# The image below filters that are not passed by.
new_image -o preallocation=metadata x.qcow2 8M
serve s -t 40 --filter="$qcow2ext" "${slow[@]}" --filter=cow file x.qcow2 \
      "${blocks[@]}"
beside
stop s
