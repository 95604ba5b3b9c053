#!/usr/bin/env bash
# nbdfuse shows the guest's disk as a file.  A file system is made and filled in
# it, mounted and changed; afterwards it is sound, and so is the image.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdfuse --version
requires test -e /dev/fuse
requires mke2fs -V
requires debugfs -V
cd "$tmp"

# A mount that is left over would keep the directory from being removed.
mkdir fuse mnt files
cleanup_fn fusermount3 -uqz fuse
cleanup_fn umount -q mnt

head -c 3000000 /dev/urandom > files/made
head -c 2000000 /dev/urandom > changed
for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 32M
    serve s --filter="$qcow2ext" file x.qcow2
    nbdfuse -P fuse.pid fuse/disk "$(uri s)" &
    wait_until "nbdfuse serves" [ -s fuse.pid ]
    [ "$(stat -c %s fuse/disk)" = $((32 << 20)) ] || fail "not the size"
    mke2fs -q -t ext4 -d files fuse/disk
    debugfs -w -R 'write changed written' fuse/disk
    # Where there are no loop devices, that was all.
    if mount -o loop fuse/disk mnt; then
        cmp files/made mnt/made
        cp changed mnt/copied
        rm mnt/made
        umount mnt
        mounted=yes
    fi
    wait_until "nothing uses the mount" fusermount3 -u fuse
    wait $!
    stop s

    clean
    qemu-img convert -f qcow2 -O raw x.qcow2 got.raw
    e2fsck -fn got.raw
    debugfs -R 'dump /written got' got.raw
    cmp changed got
    if [ "$mounted" ]; then
        debugfs -R 'dump /copied got' got.raw
        cmp changed got
        debugfs -R 'ls /' got.raw | grep made && fail "is still there"
    fi
    rm -f fuse.pid
done
same_file got.raw x.data
