#!/usr/bin/env bash
# Lies about bitmaps: the disk is read or the image refused, but nothing is written
# where metadata is, and such a bitmap is not shown.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

qemu-img create -q -f qcow2 x.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 1M' x.qcow2 > /dev/null
qemu-img bitmap --add x.qcow2 b
qemu-io -f qcow2 -c 'write -P 2 0 1M' x.qcow2 > /dev/null
# Nothing is wrong with this one.
nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
       --run 'qemu-io -f raw -c "write -P 2 0 64k" "$uri"' > /dev/null
qemu-img check x.qcow2

mkdir lies
"$PYTHON" "$lib/bitmap-lies.py" x.qcow2 lies > names
while read -r name kind; do
    f=lies/$name.qcow2
    echo "=== $name"
    cp "$f" before

    r=0
    timeout 30 nbdkit -U - --filter="$qcow2ext" file "$f" --run '
        qemu-io -r -f raw -c "read -P 2 0 1M" "$uri" | grep "^read" &&
        ! qemu-io -f raw -c "write -P 3 0 64k" "$uri" | grep "^wrote"' \
            > log 2>&1 || r=$?
    cat log
    # 1: the start was refused.
    [ $r -le 1 ] || fail "$name: status $r"
    if [ $r = 1 ]; then grep -q 'error: .*lies/' log || fail "$name"; fi
    # The corrupt bit, at most, has been set.
    cmp -l before "$f" > differences || :
    if grep -v '^ *80 ' differences; then fail "$name: the image changed"; fi

    r=0
    timeout 30 nbdkit -r -U - --filter="$qcow2ext" file "$f" \
            qcow2ext-bitmap=b --run 'nbdinfo --map "$uri"' > log 2>&1 || r=$?
    cat log
    [ $r -lt 124 ] || fail "$name: status $r"
    if [ "$kind" = damaged ]; then [ $r != 0 ] || fail "$name: shown"; fi
done < names
