#!/usr/bin/env bash
# Allocated clusters that are holes of the data file are holes that read as
# zeros, so that a fresh raw pair does not look full.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# Without holes in the file system there is nothing to see.
truncate -s 1M hole
requires test "$(stat -c %b hole)" = 0

map ()
{
    # shellcheck disable=SC2016
    served 'nbdinfo --map --totals "$uri"' file x.qcow2 | tee map
}

qemu-img create -q -f qcow2 -o data_file=x.data,data_file_raw=on x.qcow2 1G
# QEMU may have written the first block.
rm x.data
truncate -s 1G x.data
map
grep -Eq '^ *1073741824 +100.0% +3 ' map || fail "a fresh pair is not empty"

# 1 MiB of data at 16 MiB, 64 KiB at the end.
head -c 1M /dev/urandom |
    dd of=x.data bs=1M seek=16 conv=notrunc status=none
head -c 64K /dev/urandom |
    dd of=x.data bs=64K seek=16383 conv=notrunc status=none
map
grep -Eq '^ *1114112 +[0-9.]+% +0 ' map || fail "not 1 MiB + 64 KiB of data"
grep -Eq '^ *1072627712 +[0-9.]+% +3 ' map || fail "the rest is no hole"
# Written zeros are data.
dd if=/dev/zero of=x.data bs=1M seek=32 count=1 conv=notrunc status=none
map
grep -Eq '^ *2162688 +[0-9.]+% +0 ' map || fail "not 2 MiB + 64 KiB of data"

qemu-img convert -f qcow2 -O raw x.qcow2 ref.raw
qemu-img map --output=json x.qcow2 > qemu.json
same x.qcow2 ref.raw -- --qemu-map qemu.json --within

# The other way round the image is to be believed: zero clusters are zeros
# whatever the data file has there.
qemu-img create -q -f qcow2 -o data_file=y.data y.qcow2 4M
qemu-io -f qcow2 -c 'write -P 7 0 4M' -c 'write -z 1M 2M' y.qcow2 > /dev/null
head -c 4M /dev/zero | tr '\0' '\7' > y.data
qemu-img convert -f qcow2 -O raw y.qcow2 ref.raw
qemu-img map --output=json y.qcow2 > qemu.json
same y.qcow2 ref.raw -- --qemu-map qemu.json
