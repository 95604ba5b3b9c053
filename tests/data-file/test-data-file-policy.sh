#!/usr/bin/env bash
# The data file that an image names must lie, symlinks resolved, in the image's
# directory or in the trees of qcow2ext-allow=; refusals say which rule and how.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
tmp=$(realpath "$tmp")
mkdir "$tmp/img" "$tmp/img/sub" "$tmp/img2" "$tmp/cwd" "$tmp/im"
cd "$tmp/cwd"

mkimage "$tmp/img/ref.qcow2" --data-file x --data 0-3=1 --data 7=2 \
        --reference "$tmp/ref.raw" --data-file-out "$tmp/img/disk.raw"
for f in img/sub/disk.raw img2/disk.raw; do
    cp "$tmp/img/disk.raw" "$tmp/$f"
done
# In the current directory there is a wrong one.
head -c 1M /dev/urandom > disk.raw

img=$tmp/img/x.qcow2

named ()
{
    echo "=== data file $1"
    mkimage "$img" --data-file "$1" --data 0-3=1 --data 7=2
}
ok ()
{
    named "$1"
    shift
    same "$img" "$tmp/ref.raw" "$@" -- --reads 10
}
bad ()
{
    local name=$1
    shift
    named "$name"
    no_disk 'qcow2ext-(allow|data-file)' file "$img" "$@"
    grep -qF -- "$name" "$tmp/expect_fail.out" ||
        fail "the message does not name $name"
}

# Relative names are taken from the image's directory, wherever we are.
ok disk.raw
ok ./disk.raw
ok sub/disk.raw
ok sub/../disk.raw
ok ../img/disk.raw
(cd "$tmp/img"; same x.qcow2 "$tmp/ref.raw")
(cd "$tmp"; same img/x.qcow2 "$tmp/ref.raw")
(cd /; same "$img" "$tmp/ref.raw")

# Absolute ones.
ok "$tmp/img/disk.raw"
ok "$tmp/img2/../img/disk.raw"
bad "$tmp/img2/disk.raw"
bad ../img2/disk.raw
bad sub/../../img2/disk.raw
bad /etc/passwd
grep -q root: "$tmp/expect_fail.out" && fail "the file's content is shown"

# Symbolic links.
ln -s disk.raw "$tmp/img/inside"
ln -s ../img2/disk.raw "$tmp/img/outside"
ln -s "$tmp/img2" "$tmp/img/dir"
ln -s "$tmp/img" "$tmp/img2/back"
ln -s loop "$tmp/img/loop"
ok inside
ok dir/back/disk.raw
bad outside
bad dir/disk.raw
named loop
no_disk 'loop' file "$img"
ln -s "$tmp/img" "$tmp/cwd/link"
named disk.raw
same link/x.qcow2 "$tmp/ref.raw"

# qcow2ext-allow replaces the default tree, and can be given again.
ok outside qcow2ext-allow="$tmp/img2"
ok "$tmp/img2/disk.raw" qcow2ext-allow="$tmp/img2"
ok ../img2/disk.raw qcow2ext-allow="$tmp"
ok ../img2/disk.raw qcow2ext-allow=../img2
ok ../img2/disk.raw qcow2ext-allow=/
bad disk.raw qcow2ext-allow="$tmp/img2"
bad ../img2/disk.raw qcow2ext-allow="$tmp/img"
ok disk.raw qcow2ext-allow="$tmp/img2" qcow2ext-allow="$tmp/img"
ok ../img2/disk.raw qcow2ext-allow="$tmp/img2" qcow2ext-allow="$tmp/img"
bad "$tmp/cwd/disk.raw" qcow2ext-allow="$tmp/img2" \
    qcow2ext-allow="$tmp/img"
# A tree is not a prefix of a name.
bad "$tmp/img2/disk.raw" qcow2ext-allow="$tmp/img"
bad disk.raw qcow2ext-allow="$tmp/im"

# Nothing at all.
bad disk.raw qcow2ext-allow=none
bad "$tmp/img/disk.raw" qcow2ext-allow=none
named disk.raw
no_disk 'allow' file "$img" qcow2ext-allow=none qcow2ext-allow="$tmp"
no_disk 'allow|No such file' file "$img" qcow2ext-allow="$tmp/nowhere"
no_disk '.' file "$img" qcow2ext-allow=

# Names that QEMU takes for protocols, whatever is allowed.
for name in 'json:{"driver":"file","filename":"/etc/passwd"}' \
            'json:{"file.filename":"disk.raw"}' nbd:localhost:10809 \
            nbd://localhost/x nbd+unix:///?socket=/tmp/x http://localhost/x \
            https://localhost/x ssh://localhost/etc/passwd file:/etc/passwd \
            file:disk.raw host_device:/dev/sda fat:/etc blkdebug::disk.raw; do
    for allow in "" qcow2ext-allow=/; do
        named "$name"
        no_disk 'qcow2ext-(allow|data-file)' file "$img" $allow
        grep -qF -- "${name%%:*}" "$tmp/expect_fail.out" ||
            fail "the message does not name $name"
    done
done
