#!/usr/bin/env bash
# dir=: one pass phrase opens all encrypted images that it fits, and direct I/O
# is for all of them; an image with another phrase concerns nobody else.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires qemu-io --version
requires nbdinfo --version
requires_direct_io

mkdir store
for name in one two; do
    new_encrypted "$xts256" x.qcow2 4M
    mv x.qcow2 store/$name
done
make_luks qemu-img create -q -f qcow2 --object secret,id=s,data=another \
          -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
          store/three 4M
qemu-img create -q -f qcow2 store/plain 4M

io='write -P 7 4k 70k'
serve_log s --filter="$qcow2ext" file dir=store qcow2ext-direct=true \
          "${nbdkit_args[@]}"
for name in one two plain; do
    qemu-io -f raw -c "$io" -c flush "nbd+unix:///$name?socket=$tmp/s.sock"
done
expect_fail . nbdinfo "nbd+unix:///three?socket=$tmp/s.sock"
qemu-io -f raw -c 'read -P 7 4k 70k' "nbd+unix:///one?socket=$tmp/s.sock" \
    > out
! grep failed out || fail "the pattern is not there"
stop s
grep 'store/three: the pass phrase of qcow2ext-passphrase= opens none' s.log

for name in one two; do
    mv store/$name x.qcow2
    encrypted_io 'read -P 7 4k 70k' 'read -P 0 80k 100k'
    clean
done
qemu-io -r -f qcow2 -c 'read -P 7 4k 70k' store/plain > out
! grep failed out || fail "the image that is not encrypted"
