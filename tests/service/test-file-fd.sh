#!/usr/bin/env bash
# An image that is given as an open file (fd=) is served as if it were given by
# name, as long as it has one.  Without a name it is not local, and a message
# says so.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# The file plugin has fd= since nbdkit 1.34.  For earlier ones, a plugin that
# has it too.
if nbdkit file --help | grep -q '^fd='; then
    plugin=(file fd=9)
else
    expect_fail "unknown parameter 'fd'" \
                nbdkit -U - --filter="$qcow2ext" file fd=9 --run true
    f=/proc/self/fd/9
    plugin=(eval config=: fd=9 get_size="stat -L -c %s $f"
            pread="dd if=$f skip=\$4 count=\$3 iflag=skip_bytes,count_bytes \
                      status=none"
            pwrite="dd of=$f seek=\$4 oflag=seek_bytes conv=notrunc \
                       status=none"
            can_write="grep -q '^flags:.*[12]\$' /proc/self/fdinfo/9 || exit 3"
            flush=: can_flush=:)
fi
plugin=(--filter="$qcow2ext" "${plugin[@]}")

# write_more: into a cluster that the image lacks yet.
write_more ()
{
    nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * 300000, 3 << 20)' -c 'h.flush ()'
}

# With a name: the data file is found, and the image grows.
mkdir images
for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    (cd images
     rm -f x.data
     new_image -o "$opts" x.qcow2 8M
     qemu-io -f qcow2 -c 'write -q -P 7 0 1M' x.qcow2)
    exec 9<>images/x.qcow2
    serve s "${plugin[@]}"
    exec 9>&-
    nbdsh -u "$(uri s)" -c 'assert h.pread (1 << 20, 0) == b"\7" * (1 << 20)'
    write_more
    stop s
    (cd images
     clean
     qemu-io -f qcow2 -c 'read -P 120 3M 300000' -c 'read -P 7 0 1M' \
             x.qcow2 | tee out
     ! grep verif out) || fail "not the content"

    # Opened for reading only.
    exec 9<images/x.qcow2
    serve s "${plugin[@]}"
    exec 9>&-
    nbdsh -u "$(uri s)" -c 'assert h.is_read_only ()' \
          -c 'assert h.pread (300000, 3 << 20) == b"x" * 300000'
    stop s
done

# Deleted; there is a file with the name that Linux shows for it then.
warning='warning: fd=9: .*not local'
new_image x.qcow2 8M
qemu-io -f qcow2 -c 'write -q -P 7 0 1M' x.qcow2
exec 9<>x.qcow2
cp x.qcow2 'x.qcow2 (deleted)'
rm x.qcow2
serve_log s "${plugin[@]}"
grep "$warning" s.log || fail "no message"
nbdsh -u "$(uri s)" -c '
h.pwrite (b"y" * 100000, 12345)
h.flush ()
try:
    h.pwrite (b"z" * 300000, 3 << 20)
    raise AssertionError ("it has grown")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
h.flush ()
assert h.pread (100000, 12345) == b"y" * 100000
'
stop s
cp /proc/self/fd/9 x.qcow2
rm 'x.qcow2 (deleted)'
exec 9>&-
no_errors
qemu-io -f qcow2 -c 'read -P 121 12345 100000' x.qcow2 | tee out
! grep verif out || fail "not written"

new_image -o data_file=x.data x.qcow2 8M
exec 9<>x.qcow2
rm x.qcow2
serve_log s "${plugin[@]}" qcow2ext-data-file=x.data
grep "$warning" s.log || fail "no message"
nbdsh -u "$(uri s)" -c 'assert h.is_read_only ()'
stop s
exec 9>&-

# Another file has taken the name by the time that a client comes, with the
# very same content: it is not touched.
new_image x.qcow2 8M
exec 9<>x.qcow2
serve s "${plugin[@]}"
mv x.qcow2 moved.qcow2
cp moved.qcow2 x.qcow2
before=$(stat -c '%y %z' x.qcow2)
nbdsh -u "$(uri s)" -c '
try:
    h.pwrite (b"z" * 300000, 3 << 20)
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
'
stop s
exec 9>&-
[ "$(stat -c '%y %z' x.qcow2)" = "$before" ] || fail "touched the other file"
no_errors moved.qcow2
