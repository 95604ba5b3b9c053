#!/usr/bin/env bash
# An image right in / names nothing by itself: all files of the machine are
# below.  qcow2ext-allow=/ lets it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
tmp=$(realpath "$tmp")
cd "$tmp"

# A / of our own, which has the directories of the real one: this script runs
# again there.
if [ -z "$QCOW2EXT_TEST_IN_ROOT" ]; then
    unshare=(unshare -m)
    [ "$(id -u)" = 0 ] || unshare=(unshare -U -r -m)
    mkdir root
    cat > make-root <<'END_MAKE'
set -e
mount -t tmpfs tmpfs root
for f in /*; do
    if [ -L "$f" ]; then
        cp -P "$f" root
    elif [ -d "$f" ]; then
        mkdir "root$f"
        mount --rbind "$f" "root$f"
    fi
done
exec chroot root "$@"
END_MAKE
    requires "${unshare[@]}" bash make-root true
    QCOW2EXT_TEST_IN_ROOT=1 "${unshare[@]}" bash make-root \
        "$abs_top_srcdir/tests/data-file/test-data-file-root.sh" ||
        fail "in a root directory of its own"
    exit 0
fi

mkdir dir
mkimage x.qcow2 --data-file d.raw --data 0-3=1 --data-file-out d.raw
cp d.raw /
cp d.raw dir

# bad NAME NBDKIT-ARGS..., ok likewise: /x.qcow2 names that data file.
named ()
{
    mkimage /x.qcow2 --data-file "$1" --data 0-3=1
}
none_named ()
{
    no_disk 'in the root directory may name nothing' file "$@"
}
bad ()
{
    named "$1"
    none_named "${@:2}"
}
ok ()
{
    named "$1"
    accepted file "${@:2}"
}

ln -s /x.qcow2 dir/link
for name in /d.raw "$tmp/d.raw" "${tmp#/}/d.raw" d.raw; do
    bad "$name" /x.qcow2
done
for image in //x.qcow2 /./x.qcow2 "$tmp/../../x.qcow2" \
             /proc/self/root/x.qcow2; do
    none_named "$image"
done
(cd /; none_named x.qcow2)

# The root directory has a second name.
mkdir mnt
mount --bind / mnt
cp -r dir mnt
bad dir/d.raw "$tmp/mnt/x.qcow2"
umount mnt

# What the command line says.
ok d.raw /x.qcow2 qcow2ext-allow=/
ok "$tmp/d.raw" /x.qcow2 qcow2ext-allow=/
ok "$tmp/d.raw" /x.qcow2 qcow2ext-allow="$tmp"
ok d.raw /x.qcow2 qcow2ext-data-file="$tmp/d.raw"
mkimage top.qcow2 --backing nothing --backing-format qcow2
bad d.raw top.qcow2 qcow2ext-backing-file=/x.qcow2
ok d.raw top.qcow2 qcow2ext-backing-file=/x.qcow2 qcow2ext-allow=/

# Beside a link to it; and beside a file, if only the link is in /.
ok "$tmp/dir/d.raw" dir/link
ok d.raw dir/link
named /d.raw
no_disk 'outside' file dir/link
ln -s "$tmp/dir/y.qcow2" /link
mkimage dir/y.qcow2 --data-file "$tmp/dir/d.raw" --data 0-3=1
accepted file /link
mkimage dir/y.qcow2 --data-file "$tmp/d.raw" --data 0-3=1
no_disk 'outside' file /link
