#!/usr/bin/env bash
# dir=: what is about one image is refused by name, and so are files that images
# name, unless their directory is allowed.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
cd "$tmp"

mkdir store files
qemu-img create -q -f qcow2 store/a.qcow2 1M
for p in data-file=x backing-file=x backing-file=none backing-format=raw \
         snapshot=1 bitmap=x trust-below=true; do
    refused "qcow2ext-${p%%=*}= is about one image and excludes dir=" \
            file dir=store "qcow2ext-$p"
done
refused 'qcow2ext-bitmap' file dir=store qcow2ext-bitmap=x \
        qcow2ext-bitmap-chain=true
refused 'dir= can be given once|only appear once|dir' file dir=store dir=files
refused 'dir' file store/a.qcow2 dir=store
refused 'dir' file dir=nowhere
refused 'dir' file dir=store/a.qcow2

serve s --filter="$qcow2ext" file dir=store qcow2ext-lock=false \
      qcow2ext-check=true qcow2ext-compress=true qcow2ext-detect-zeroes=unmap \
      qcow2ext-l2-cache-size=1M qcow2ext-decoded-cache-size=1M \
      qcow2ext-exports=all
nbdinfo "nbd+unix:///a.qcow2?socket=$tmp/s.sock"
stop s

# An image that names its neighbour, another in a directory beside it, and one
# with a backing file.
qemu-img create -q -f qcow2 -o data_file=store/a.qcow2 store/names-neighbour 1M \
         2>/dev/null ||
    qemu-img create -q -f qcow2 -o data_file=x.data store/names-neighbour 1M
qemu-img create -q -f qcow2 -o data_file="$tmp/files/b.data" store/pair 1M
qemu-img create -q -f raw files/base.raw 1M
qemu-img create -q -f qcow2 -b "$tmp/files/base.raw" -F raw store/overlay
qemu-img create -q -f qcow2 store/a.qcow2 1M

uri_of ()
{
    echo "nbd+unix:///$1?socket=$tmp/s.sock"
}
sum=$(sha256sum store/a.qcow2)
for allow in "" none; do
    serve_log s --filter="$qcow2ext" file dir=store \
              ${allow:+qcow2ext-allow=$allow}
    for name in names-neighbour pair overlay; do
        expect_fail '' nbdinfo "$(uri_of $name)"
        grep -q "$name: the image names the .*qcow2ext-allow=" s.log
    done
    ! grep 'qcow2ext-data-file\|qcow2ext-backing-file' s.log ||
        fail "a message recommends what is refused"
    nbdinfo "$(uri_of a.qcow2)"
    stop s
done

serve_log s --filter="$qcow2ext" file dir=store qcow2ext-allow=files
expect_fail '' nbdinfo "$(uri_of names-neighbour)"
for name in pair overlay; do
    nbdsh -u "$(uri_of $name)" -c 'h.pwrite (b"1" * 65536, 0)' \
          -c 'assert h.pread (65536, 0) == b"1" * 65536'
done
stop s
[ "$(sha256sum store/a.qcow2)" = "$sum" ] || fail "a neighbour was written to"
[ "$(head -c 4 files/b.data)" = 1111 ] || fail "the data is not in its file"
