#!/usr/bin/env bash
# The operator names a qcow2 image as the data file, which it may be, but hardly
# ever is: there is a warning before a client can write to it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
cd "$tmp"

new_image -o data_file=x.data x.qcow2 1M
qemu-img create -q -f qcow2 other.qcow2 1M
for name in other.qcow2 x.data; do
    nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
           qcow2ext-data-file=$name --run true 2> $name.log
    cat $name.log
done
grep 'warning.*other.qcow2.* is a qcow2 image' other.qcow2.log ||
    fail "no warning"
! grep warning x.data.log || fail "a warning about the right one"
