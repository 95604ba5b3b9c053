#!/usr/bin/env bash
# Images inside something that the tar filter below unpacks are served to four
# connections at once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires tar --version
requires_nbd_module
cd "$tmp"

below_images
tar cf all.tar x.qcow2 z.qcow2 d.qcow2 o.qcow2
over --filter=tar file all.tar tar-entry=IMAGE
