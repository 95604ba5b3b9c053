#!/usr/bin/env bash
# qcow2ext-check counts errors and leaks as qemu-img check does, on sound images and
# on images with a fault of each kind.
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
requires qemu-img --version
requires jq --version
cd "$tmp"

qemu-img create -q -f qcow2 plain.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 5M 300k' \
        -c 'write -z 8M 1M' plain.qcow2 > /dev/null
cp plain.qcow2 snapshots.qcow2
qemu-img snapshot -c one snapshots.qcow2
qemu-io -f qcow2 -c 'write -P 3 128k 200k' snapshots.qcow2 > /dev/null
qemu-img snapshot -c two snapshots.qcow2
head -c 3000000 "$(command -v bash)" > raw
qemu-img convert -c -f raw -O qcow2 raw packed.qcow2
qemu-io -f qcow2 -c 'write -P 3 128k 200k' packed.qcow2 > /dev/null
cp plain.qcow2 bitmaps.qcow2
qemu-img bitmap --add bitmaps.qcow2 b
qemu-io -f qcow2 -c 'write -P 3 128k 200k' bitmaps.qcow2 > /dev/null

wrong=0
for image in plain snapshots packed bitmaps; do
    mkdir $image
    "$PYTHON" "$srcdir/plant-faults.py" $image.qcow2 $image > names
    while read -r name; do
        f=$image/$name.qcow2
        # Its exit status tells what it found.
        qemu-img check --output=json "$f" > qemu.json 2> qemu.log || :
        theirs=$(jq -r '"\(.corruptions // 0) errors and \(.leaks // 0)"' \
                    qemu.json)
        nbdkit -r -U - --filter="$qcow2ext" file "$f" qcow2ext-check=true \
               --run true > /dev/null 2> log ||
            { cat log; fail "$image $name: not served"; }
        ours=$(sed -n 's/.*the check found \(.*\) leaked.*/\1/p' log |
               head -n 1)
        echo "$image $name: qemu-img: $theirs, qcow2ext: ${ours:=0 errors and 0}"
        if [ "$ours" != "$theirs" ]; then
            grep -v '^$' qemu.log log | head -n 20
            wrong=1
        fi
    done < names
done
[ $wrong = 0 ] || fail "the counts differ"
