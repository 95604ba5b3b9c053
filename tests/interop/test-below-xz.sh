#!/usr/bin/env bash
# Images inside something that the xz filter below unpacks are served to four
# connections at once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires xz --version
requires_nbd_module
cd "$tmp"

below_images
for f in [xzdo].qcow2; do
    xz -k --block-size=256KiB "$f"
done
over --filter=xz file IMAGE.xz
