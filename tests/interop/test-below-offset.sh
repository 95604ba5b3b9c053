#!/usr/bin/env bash
# Images in a partition or at an offset of a disk are served to four connections
# at once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires sfdisk --version
requires_nbd_module
cd "$tmp"

below_images
truncate -s 16M disk
sfdisk -q disk <<< '2048,20480' || fail sfdisk
for f in [xzdo].qcow2; do
    cp disk "disk-$f"
    dd if="$f" of="disk-$f" bs=1M seek=1 conv=notrunc status=none
done
over --filter=partition file disk-IMAGE partition=1
over --filter=offset file disk-IMAGE offset=1M
over --filter=offset file disk-IMAGE offset=1M range=10M
