#!/usr/bin/env bash
# A layer below that takes only whole blocks is handled: every read reaches it
# aligned, and the client can read any byte.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

below_images
for min in 512 4096 65536; do
    for f in [xzdo].qcow2; do
        # The image as a whole number of blocks; what follows it is ignored.
        truncate -s %$min "$f"
    done
    over --filter=blocksize-policy file IMAGE blocksize-minimum=$min \
         blocksize-preferred=65536 blocksize-error-policy=error
done
# Also where the largest request is small.
for f in [xzdo].qcow2; do
    truncate -s %4096 "$f"
done
over --filter=blocksize-policy file IMAGE blocksize-minimum=4096 \
     blocksize-preferred=4096 blocksize-maximum=8192 \
     blocksize-error-policy=error

# What the client is told does not come from below.
# shellcheck disable=SC2016
served 'nbdinfo --json "$uri"' --filter=blocksize-policy file x.qcow2 \
       blocksize-minimum=4096 blocksize-preferred=65536 \
       blocksize-error-policy=error > info.json
"$PYTHON" -c 'import json
e = json.load (open ("info.json"))["exports"][0]
assert e.get ("block_size_minimum", 1) == 1, e'
