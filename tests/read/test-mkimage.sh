#!/usr/bin/env bash
# The images that mkimage.py makes pass qemu-img check and hold what it says,
# so that the other tests can trust it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires zstd --version
cd "$tmp"

check ()
{
    mkimage x.qcow2 --reference ref.raw --data-file-out x.data "$@"
    qemu-img check -q x.qcow2 || fail "qemu-img check: $*"
    qemu-img compare -q -f raw -F qcow2 ref.raw x.qcow2 ||
        fail "qemu-img compare: $*"
}

for b in 9 12 16; do
    size=$((64 << b))
    for version in 2 3; do
        check --version $version --cluster-bits $b --size $size \
              --compress 0-20=7 --data 21=8 --compress 33=4,nofinal \
              --compress 34=5,skip:100 --compress 60=3,last
        check --version $version --cluster-bits $b --size $size \
              --data 0=1 --compress 1-3=2 --snapshot 1:one \
              --data 0=5 --snapshot "2:two:$((100 << b))" --compress 2=9
    done
    for order in 0 1 3 4 5 6; do
        check --cluster-bits $b --size $size --refcount-order $order \
              --data 0-5=7 --zero 6 --zero-alloc 7 --data 63=9
    done
    check --cluster-bits $b --size $size --compression zstd \
          --compress 0-20=7 --compress 34=5,skip:100 --compress 60=3,last
    check --cluster-bits $b --size $size --data-file x.data \
          --data 0-3=5 --zero 6 --data 8=1
    check --cluster-bits $b --size $size --data-file x.data --raw \
          --data 0-63=5
    check --cluster-bits $b --size $((size - 512)) --tables-first \
          --data 0-63=5
done
for data_file in "" "--data-file x.data"; do
    # shellcheck disable=SC2086
    check --extended-l2 --cluster-bits 14 $data_file --data 0-5=7 --zero 6 \
          --zero-alloc 7 --data 63=9 --subclusters 8=7:0xf0f:0xf0f00000
done
check --extended-l2 --cluster-bits 16 --compress 0-5=7 --data 6=8
