#!/usr/bin/env bash
# guestfish makes filesystems and files in disks that we serve for writing; they are
# clean and whole afterwards, and so are the images.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires e2fsck -V
requires_guestfish
cd "$tmp"

head -c 3000000 /dev/urandom > content
qemu-img create -q -f qcow2 -o data_file=p.raw p.qcow2 64M
qemu-img create -q -f qcow2 i.qcow2 64M

# One virtual machine for both, as it may have to be emulated.
for d in p i; do
    serve $d --filter="$qcow2ext" file $d.qcow2
done
guestfish --format=raw -a "nbd://?socket=$tmp/p.sock" \
          -a "nbd://?socket=$tmp/i.sock" <<'END'
run
mkfs ext4 /dev/sda
mount /dev/sda /
upload content /content
mkdir /gone
upload content /gone/content
sync
rm-rf /gone
fstrim /
umount /
mkfs ext4 /dev/sdb
mount /dev/sdb /
upload content /content
umount /
END
for d in p i; do
    stop $d
    qemu-img check $d.qcow2
    qemu-img convert -f qcow2 -O raw $d.qcow2 $d.out
    e2fsck -fn $d.out
    debugfs -R 'dump /content got' $d.out
    cmp content got
done
