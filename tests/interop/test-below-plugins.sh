#!/usr/bin/env bash
# Images that the nbd, data and split plugins deliver are served to four
# connections at once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

below_images
for f in [xzdo].qcow2; do
    serve "plain-$f" -r file "$f"
    # The memory plugin, which has to be filled first.
    serve "memory-$f" memory 16M
    nbdcopy "$f" "$(uri "memory-$f")"
done
over nbd socket="$tmp/plain-IMAGE.sock"
over nbd socket="$tmp/plain-IMAGE.sock" shared=true
over nbd socket="$tmp/memory-IMAGE.sock"
over data data="<IMAGE"
split -b 100K -d x.qcow2 part
same_over ref.raw split part*
