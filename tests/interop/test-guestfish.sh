#!/usr/bin/env bash
# guestfish finds the ext4 filesystem and the file in a disk inside a compressed
# image and inside a pair.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires mkfs.ext4 -V
requires_guestfish
cd "$tmp"

mkdir files
mixed_file files/content 3000000
md5sum < files/content > want
truncate -s 64M disk.raw
mkfs.ext4 -q -d files disk.raw
qemu-img convert -c -f raw -O qcow2 disk.raw z.qcow2
qemu-img create -q -f qcow2 -o data_file=d.data,data_file_raw=on d.qcow2 64M
qemu-img convert -n -f raw -O qcow2 disk.raw d.qcow2

# One virtual machine for both, as it may have to be emulated.
serve z -r --filter="$qcow2ext" file z.qcow2
serve d -r --filter="$qcow2ext" file d.qcow2
guestfish --ro --format=raw -a "nbd://?socket=$tmp/z.sock" \
          -a "nbd://?socket=$tmp/d.sock" > out <<'END'
run
list-filesystems
mount-ro /dev/sda /
checksum md5 /content
umount /
mount-ro /dev/sdb /
checksum md5 /content
END
cat out
grep -q '/dev/sda: ext4' out || fail "no filesystem in the compressed image"
grep -q '/dev/sdb: ext4' out || fail "no filesystem in the pair"
[ "$(grep -c "$(cut -d ' ' -f 1 want)" out)" = 2 ] || fail "the file differs"
stop z
stop d
