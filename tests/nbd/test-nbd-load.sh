#!/usr/bin/env bash
# libnbd and all that it needs is loaded only for a data file on an NBD server.
# If it is missing, nbdkit does not start with one, and says why.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires_libnbd
requires qemu-img --version
cd "$tmp"
qemu-img create -q -f qcow2 -o data_file=x.data x.qcow2 1M

serve s --filter="$qcow2ext" file x.qcow2
cat "/proc/$(< s.pid)/maps" > local.maps
stop s
grep -q libzstd local.maps
if grep libnbd local.maps; then
    echo "$0: libnbd is loaded for a local data file"
    exit 1
fi

serve s --filter="$qcow2ext" file x.qcow2 \
      qcow2ext-data-file="nbd+unix:///?socket=$tmp/none"
cat "/proc/$(< s.pid)/maps" > remote.maps
stop s
grep -q libnbd remote.maps

mkdir broken
: > broken/libnbd.so.0
expect_fail 'needs libnbd, which cannot be loaded: .*libnbd.so.0' \
    env LD_LIBRARY_PATH="$tmp/broken" \
    nbdkit -U - --filter="$qcow2ext" file x.qcow2 --run true \
    qcow2ext-data-file=nbd://localhost
LD_LIBRARY_PATH=$tmp/broken \
    nbdkit -U - --filter="$qcow2ext" file x.qcow2 --run true
