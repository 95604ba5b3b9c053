#!/usr/bin/env bash
# What cannot be decrypted is refused when nbdkit starts, by the name of what is
# missing or not supported, with a word on what to do, soon, and without the pass
# phrase in any message.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"

new_encrypted "$xts256" luks.qcow2 1M

# No pass phrase; a wrong one; one that is no use; two of them; none in it.
refused 'the image is encrypted.*qcow2ext-passphrase=' file luks.qcow2
refused 'qcow2ext-passphrase= opens none' \
        file luks.qcow2 qcow2ext-passphrase=unspeakable
mkimage plain.qcow2
refused 'plain.qcow2: a pass phrase was given.*not encrypted' \
        file plain.qcow2 qcow2ext-passphrase=unspeakable
refused 'given twice' file luks.qcow2 "${nbdkit_args[@]}" "${nbdkit_args[@]}"
: > nothing
refused 'pass phrase is empty' file luks.qcow2 qcow2ext-passphrase=+nothing
refused 'nowhere' file luks.qcow2 qcow2ext-passphrase=+nowhere

# Not even in what nbdkit itself does not print.
printf unspeakable > wrong
nbdkit -v -D qcow2ext.verbose=1 -U - --filter="$qcow2ext" file luks.qcow2 \
       qcow2ext-passphrase=+wrong --run true > log 2>&1 &&
    fail "a wrong pass phrase was accepted"
grep 'opens none' log
! grep unspeakable log || fail "the pass phrase is in a message"

# As a backing file as well.
mkimage top.qcow2 --backing luks.qcow2 --backing-format qcow2
refused 'luks.qcow2: the image is encrypted' file top.qcow2
accepted file top.qcow2 "${nbdkit_args[@]}"

# The old way, and ciphers that we do not have.
qemu-img create -q -f qcow2 "${secret[@]}" \
         -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M
refused 'AES in the old way.*qemu-img convert' file aes.qcow2
refused 'AES in the old way' file aes.qcow2 "${nbdkit_args[@]}"

# patched NAME OFFSET BYTES: luks.qcow2 with other bytes in its LUKS header.
at=$("$PYTHON" -c 'print(open("luks.qcow2","rb").read().find(b"LUKS\xba\xbe"))')
patched ()
{
    cp luks.qcow2 "$1"
    printf '%b' "$3" | dd of="$1" bs=1 seek=$((at + $2)) conv=notrunc status=none
}

# slow_or_refused REGEX IMAGE: within 2 s of processor time.
quickly_refused ()
{
    local before after
    before=$(ticks)
    refused "$1" file "$2" "${nbdkit_args[@]}"
    after=$(ticks)
    [ $((after - before)) -le $((2 * $(getconf CLK_TCK))) ] ||
        fail "$2: it took $((after - before)) ticks"
}
# Processor time of the children that have ended.
ticks ()
{
    local stat
    read -r -a stat < "/proc/$$/stat"
    echo $((stat[15] + stat[16]))
}

patched x.qcow2 8 'serpent\0'
quickly_refused 'encrypted with serpent-xts-plain64.*qemu-img convert' x.qcow2
patched x.qcow2 40 'lrw-benbi\0\0'
quickly_refused 'aes-lrw-benbi' x.qcow2
patched x.qcow2 72 'whirlpool\0'
quickly_refused 'hash whirlpool' x.qcow2
patched x.qcow2 108 '\0\0\0\060'
quickly_refused '48 bytes' x.qcow2
patched x.qcow2 7 '\002'
quickly_refused 'LUKS version 2' x.qcow2
patched x.qcow2 0 'X'
quickly_refused 'magic' x.qcow2
# A key slot: iterations, place, stripes; the digest's iterations.
patched x.qcow2 212 '\0377\0377\0377\0377'
quickly_refused 'about [0-9]+ seconds.*more than 60' x.qcow2
patched x.qcow2 164 '\0377\0377\0377\0377'
quickly_refused 'about [0-9]+ seconds' x.qcow2
patched x.qcow2 248 '\0377\0377\0377\0377'
quickly_refused 'key slot 0 .*outside' x.qcow2
patched x.qcow2 252 '\0377\0377\0377\0377'
quickly_refused '4294967295 stripes' x.qcow2
patched x.qcow2 208 '\0\0\0336\0255'
quickly_refused 'no key slot in use' x.qcow2

# The extension: see tests of the header for its other fields.
cp luks.qcow2 x.qcow2
truncate -s $((at + 4096)) x.qcow2
quickly_refused 'past the end of the file|outside' x.qcow2

# Compressed clusters would be plain text.
expect_fail 'cannot be compressed: the image is encrypted' \
            timeout 60 nbdkit -U - --filter="$qcow2ext" file luks.qcow2 \
            "${nbdkit_args[@]}" qcow2ext-compress=true \
            --run 'nbdinfo --size "$uri"'
