#!/usr/bin/env bash
# A LUKS disk inside an image: the luks filter above opens it, and what comes out
# is what went in.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdkit --filter=luks memory 1 --help
requires_nbd_module
cd "$tmp"

printf secret > pass
mixed_file plain.raw 4194304
make_luks qemu-img create -q -f luks --object secret,id=s,file=pass \
          -o key-secret=s,iter-time=10 disk.luks 4M
qemu-img convert -n -f raw --object secret,id=s,file=pass \
         --target-image-opts plain.raw \
         driver=luks,file.filename=disk.luks,key-secret=s
qemu-img convert -f raw -O qcow2 disk.luks x.qcow2
qemu-img convert -c -f raw -O qcow2 disk.luks z.qcow2
qemu-img create -q -f qcow2 -o data_file=d.data,data_file_raw=on d.qcow2 \
         "$(stat -c %s disk.luks)"
qemu-img convert -n -f raw -O qcow2 disk.luks d.qcow2

for image in x.qcow2 z.qcow2 d.qcow2; do
    echo "=== $image"
    same $image disk.luks
    timeout 60 nbdkit -r -U - --filter=luks --filter="$qcow2ext" file $image \
            passphrase=+pass \
            --run "check_disk \"\$uri\" plain.raw --no-map --connections 4"
done
