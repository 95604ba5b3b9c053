#!/usr/bin/env bash
# The file system of the data file is full: the client is told so, what is there
# can be read, and the image stays sound.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
mkdir small
requires unshare -m mount -t tmpfs -o size=4m none small
mount -t tmpfs -o size=4m none small
cleanup_fn umount small

cat > fill.py <<'END'
import errno, nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
size = h.get_size ()
model = bytearray (size)
full = 0
for at in range (0, size, 65536):
    blob = b"%08x" % (at + 1) * 8192
    try:
        h.pwrite (blob, at)
        model[at:at + 65536] = blob
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        full += 1
        # Some of it may be there.
        model[at:at + 65536] = h.pread (65536, at)
        if full == 8:
            break
assert full, "it never was full"
assert any (model[2 << 20:3 << 20])
h.flush ()
# There is space again.
h.trim (1 << 20, 0)
model[:1 << 20] = h.pread (1 << 20, 0)
h.flush ()
h.flush ()
h.pwrite (b"again..." * 8192, 0)
model[:65536] = b"again..." * 8192
h.flush ()
assert h.pread (size, 0) == model
with open ("model.raw", "wb") as f:
    f.write (model)
h.shutdown ()
END

for opts in "data_file=small/x.data" "data_file=small/x.data,data_file_raw=on"; do
    rm -f small/* x.qcow2
    qemu-img create -q -f qcow2 -o "$opts" x.qcow2 16M
    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" fill.py "$(uri s)" || fail "$opts"
    stop s
    clean
    identical model.raw
done
