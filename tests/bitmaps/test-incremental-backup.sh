#!/usr/bin/env bash
# A full backup, then incremental ones by a bitmap, as the manual page says: into
# the older copy and into an overlay of it.  Changes by us and by qemu, zeroed and
# trimmed ranges included; what is restored is the disk.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# incremental DEST-COMMAND...: copies what the bitmap shows, and starts it anew.
incremental ()
{
    nbdkit -r -U - --filter="$qcow2ext" file vm.qcow2 qcow2ext-bitmap=backup \
           --run "nbdcopy --sparse=0 --destination-is-zero \"\$uri\" \
                          -- [ $* ]"
    qemu-img bitmap --clear vm.qcow2 backup
}

for opts in data_file=vm.raw,data_file_raw=on data_file=vm.raw \
            cluster_size=4096; do
    echo "=== $opts"
    rm -f ./*.raw ./*.qcow2
    qemu-img create -q -f qcow2 -o "$opts" vm.qcow2 32M
    qemu-io -f qcow2 -c 'write -P 1 0 20M' vm.qcow2 > /dev/null

    # The full backup, and from here on the bitmap.
    nbdkit -r -U - --filter="$qcow2ext" file vm.qcow2 \
           --run 'nbdcopy "$uri" full.raw'
    qemu-img bitmap --add vm.qcow2 backup
    cp full.raw full.old

    # The disk is used, by us and by qemu.
    nbdkit -U - --filter="$qcow2ext" file vm.qcow2 --run '
        qemu-io -f raw -c "write -P 2 1000 5000" -c "write -z 3M 1M" \
                -c "discard 6M 1M" -c "write -P 3 25M 64k" "$uri"' > /dev/null
    qemu-io -f qcow2 -c 'write -P 4 8M 100k' vm.qcow2 > /dev/null
    qemu-img convert -f qcow2 -O raw vm.qcow2 want.raw

    incremental nbdkit file full.raw
    cmp full.raw want.raw
    # Something was left out: not all of the disk was copied again.
    if cmp -s full.old want.raw; then fail "nothing had changed"; fi

    # And once more, into an overlay, which holds no more than that.
    nbdkit -U - --filter="$qcow2ext" file vm.qcow2 --run '
        qemu-io -f raw -c "write -P 5 15M 300k" -c "write -z 0 64k" \
                "$uri"' > /dev/null
    qemu-img convert -f qcow2 -O raw vm.qcow2 want.raw
    qemu-img create -q -f qcow2 -b full.raw -F raw inc.qcow2
    incremental nbdkit --filter="$qcow2ext" file inc.qcow2
    qemu-img compare -f qcow2 -F raw inc.qcow2 want.raw
    qemu-img check inc.qcow2
    qemu-img check vm.qcow2
    [ "$(stat -c %s inc.qcow2)" -lt 2000000 ] ||
        fail "the increment holds $(stat -c %s inc.qcow2) bytes"
done
