#!/usr/bin/env bash
# Images inside something that the gzip filter below unpacks are served to four
# connections at once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires gzip --version
requires_nbd_module
cd "$tmp"

below_images
for f in [xzdo].qcow2; do
    gzip -k "$f"
done
over --filter=gzip file IMAGE.gz
