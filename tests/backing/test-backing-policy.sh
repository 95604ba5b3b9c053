#!/usr/bin/env bash
# Each link of a chain must lie in the allowed trees; the message names the link
# and the parameter.  A relative name is taken from the naming image.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
tmp=$(realpath "$tmp")
mkdir "$tmp/img" "$tmp/img/sub" "$tmp/img2" "$tmp/cwd"
cd "$tmp/cwd"

bad ()
{
    local name=$1
    shift
    no_disk 'qcow2ext-(allow|backing-file)' file "$tmp/img/top.qcow2" "$@"
    grep -qF -- "$name" "$tmp/expect_fail.out" ||
        fail "the message does not name $name"
}
top ()
{
    mkimage "$tmp/img/top.qcow2" --backing "$1" --backing-format "${2-qcow2}"
}
middle ()
{
    mkimage "$1/middle.qcow2" --backing "$2" --backing-format "${3-raw}"
}

for dir in img img/sub img2; do
    mixed_file "$tmp/$dir/base.raw" 1048576
    printf '%s' "$dir" | dd of="$tmp/$dir/base.raw" conv=notrunc status=none
done

top middle.qcow2
middle "$tmp/img" base.raw
same "$tmp/img/top.qcow2" "$tmp/img/base.raw"

# From the directory of the image that has the name.
top sub/middle.qcow2
middle "$tmp/img/sub" base.raw
same "$tmp/img/top.qcow2" "$tmp/img/sub/base.raw"
middle "$tmp/img/sub" ../base.raw
same "$tmp/img/top.qcow2" "$tmp/img/base.raw"

# The first link leads out, the second, both.
top ../img2/middle.qcow2
middle "$tmp/img2" ../img/base.raw
bad ../img2/middle.qcow2
bad ../img2/middle.qcow2 qcow2ext-allow="$tmp/img"
bad ../img2/middle.qcow2 qcow2ext-allow=none
bad ../img/base.raw qcow2ext-allow="$tmp/img2"
same "$tmp/img/top.qcow2" "$tmp/img/base.raw" qcow2ext-allow="$tmp"
same "$tmp/img/top.qcow2" "$tmp/img/base.raw" qcow2ext-allow="$tmp/img" \
     qcow2ext-allow="$tmp/img2"
top middle.qcow2
middle "$tmp/img" ../img2/base.raw
bad ../img2/base.raw
same "$tmp/img/top.qcow2" "$tmp/img2/base.raw" qcow2ext-allow="$tmp/img" \
     qcow2ext-allow="$tmp/img2"
middle "$tmp/img" /etc/passwd
bad /etc/passwd
! grep -q root: "$tmp/expect_fail.out" || fail "its content is shown"
ln -s ../img2/base.raw "$tmp/img/link"
middle "$tmp/img" link
bad link

# The data file of a backing file.
top middle.qcow2
mkimage "$tmp/img/middle.qcow2" --data-file ../img2/base.raw --data 0-15=1
no_disk 'img2/base.raw' file "$tmp/img/top.qcow2"
grep -q qcow2ext-allow "$tmp/expect_fail.out" || fail "the parameter is not named"
same "$tmp/img/top.qcow2" "$tmp/img2/base.raw" qcow2ext-allow="$tmp"

# Protocols, whatever is allowed.
for name in 'json:{"driver":"file","filename":"/etc/passwd"}' \
            nbd://localhost http://localhost/x file:base.raw \
            'json:{"file.filename":"base.raw"}'; do
    top "$name" raw
    bad "${name%%:*}" qcow2ext-allow=/
done

# Only files.
mkfifo "$tmp/img/fifo"
top fifo raw
no_disk 'fifo' file "$tmp/img/top.qcow2"
top ../img raw
no_disk 'img is neither' file "$tmp/img/top.qcow2" qcow2ext-allow="$tmp"
