#!/usr/bin/env bash
# What is no qcow2 image, nothing at all, or only the beginning of one is
# refused with a message, by name of the format.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
cd "$tmp"

: > empty
printf 'QFI' > short
head -c 1M /dev/zero > zeros
echo "<html>404</html>" > page
printf 'qfi\373' > lower
qemu-img create -q -f qcow x.qcow 1M
qemu-img create -q -f vmdk x.vmdk 1M
for f in empty short zeros page lower x.vmdk; do
    no_disk 'qcow2' file $f
    # Said at the start, before there is a client.
    grep -q "warning: .*/$f: this is no qcow2 image" expect_fail.out ||
        fail "the start does not warn"
done
# The old format has the magic, too.
refused 'version' file x.qcow
no_disk 'dir|missing|No such file' file missing.qcow2

# The magic, but not the header.
mkimage x.qcow2
for n in 4 5 8 20 71 72 103 104 111; do
    head -c $n x.qcow2 > cut.qcow2
    case $n in
        104 | 111) no_disk 'qcow2|header|short|truncated' file cut.qcow2 ;;
        *) refused 'header|short|truncated' file cut.qcow2 ;;
    esac
done
