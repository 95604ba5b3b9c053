#!/usr/bin/env bash
# What else images have, in encrypted ones: compressed clusters, which are plain
# text (as QEMU writes them); dirty bitmaps; an encrypted backing file; QEMU
# makes the disk larger where we have written its end; extents.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

# same: what QEMU reads, and we.
same_both ()
{
    as_raw x.qcow2 x.raw
    served 'check_disk "$uri" x.raw --connections 4 --reads 30' \
           file x.qcow2 "${nbdkit_args[@]}"
}

# ours CODE: we do what nbdsh is told to.
ours ()
{
    code=$1 writing '"$PYTHON" -m nbd -u "$uri" -c "$code"' \
            file x.qcow2 "${nbdkit_args[@]}"
}

# Compressed clusters between others; then written over in part.
for cipher in "$xts256" "$cbc128"; do
    new_encrypted "$cipher" x.qcow2 $((1 << 20))
    encrypted_io 'write -P 1 0 64k' 'write -c -P 2 64k 64k' \
                 'write -c -P 3 128k 64k' 'write -P 4 256k 1k'
    same_both
    ours 'h.pwrite (b"part of it, seventeen@", 100000); h.zero (70000, 120000)'
    cp x.raw model.raw
    printf 'part of it, seventeen@' |
        dd of=model.raw bs=1 seek=100000 conv=notrunc status=none
    dd if=/dev/zero of=model.raw bs=1 seek=120000 count=70000 conv=notrunc \
       status=none
    clean
    identical model.raw
    ! grep -q 'part of it' x.qcow2 || fail "plain text"
done

# Dirty bitmaps record what we write.
new_encrypted "$xts256" x.qcow2 1M
qemu-img bitmap --add -g 64k "${secret[@]}" --image-opts "$(opts x.qcow2)" b
ours 'h.pwrite (bytes (512), 200000)'
clean
served 'nbdinfo --map "$uri"' file x.qcow2 "${nbdkit_args[@]}" \
       qcow2ext-bitmap=b > map
grep -Eq '^ *196608 +65536 +0 ' map || { cat map; fail "the bitmap"; }

# A backing file that is encrypted itself, with the same pass phrase.
mv x.qcow2 base.qcow2
new_encrypted "$cbc256" -u -b base.qcow2 -F qcow2 x.qcow2 1M
ours 'h.pwrite (b"Z" * 700, 200100)'
served 'nbdcopy "$uri" -' file base.qcow2 "${nbdkit_args[@]}" > model.raw
"$PYTHON" -c 'print ("Z" * 700, end="")' |
    dd of=model.raw bs=1 seek=200100 conv=notrunc status=none
served 'check_disk "$uri" model.raw' file x.qcow2 "${nbdkit_args[@]}"

# The end of the disk within a cluster, or even within a sector: QEMU makes the
# disk larger, and finds zeros there.
for data in "" data_file=x.data; do
    new_encrypted "$xts256" ${data:+-o $data} x.qcow2 $((300 * 1024 + 512))
    ours 'h.pwrite (b"E" * 700, 307000)'
    qemu-img resize -q "${secret[@]}" --image-opts "$(opts x.qcow2)" 400k
    as_raw x.qcow2 x.raw
    "$PYTHON" -c '
d = open ("x.raw", "rb").read ()
assert d == bytes (307000) + b"E" * 700 + bytes (400 * 1024 - 307700), "end"'
    same_both
done

# A data file's holes are no zeros: all that is mapped is data; and zeros can
# be told from it.
new_encrypted "$xts256" -o data_file=x.data x.qcow2 1M
encrypted_io 'write 0 128k' 'write -z 64k 64k'
truncate -s 1M x.data
served 'nbdinfo --map "$uri"' file x.qcow2 "${nbdkit_args[@]}" > map
[ "$(awk '$3 == 0 { n += $2 } END { print n }' map)" -eq 65536 ] || {
    cat map
    fail "the extents"
}

# A snapshot is served with the same key.
new_encrypted "$xts128" x.qcow2 1M
encrypted_io 'write -P 7 100k 300k'
as_raw x.qcow2 old.raw
qemu-img snapshot "${secret[@]}" --image-opts -c s "$(opts x.qcow2)"
encrypted_io 'write -P 8 150k 300k'
served 'check_disk "$uri" old.raw' file x.qcow2 "${nbdkit_args[@]}" \
       qcow2ext-snapshot=s
