#!/usr/bin/env bash
# The server of the data file has no space left: the client is told just that,
# and goes on when there is space again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
mount_small 2m

cat > fill.py <<'END'
import errno, nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
model = bytearray (16 << 20)
full = False
for at in range (0, 4 << 20, 65536):
    blob = b"%08x" % (at + 1) * 8192
    try:
        h.pwrite (blob, at)
        model[at:at + 65536] = blob
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        model[at:at + 65536] = h.pread (65536, at)
        full = True
assert full
h.flush ()
h.zero (1 << 20, 0)
model[:1 << 20] = bytes (1 << 20)
h.pwrite (b"again..." * 8192, 8 << 20)
model[8 << 20:(8 << 20) + 65536] = b"again..." * 8192
h.flush ()
assert h.pread (16 << 20, 0) == model
with open ("model.raw", "wb") as f:
    f.write (model)
h.shutdown ()
END
for raw in off on; do
    rm -f small/*
    new_image -o "data_file=small/x.data,data_file_raw=$raw" x.qcow2 16M
    truncate -s 16M small/x.data
    serve far file small/x.data
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
    "$PYTHON" fill.py "$(uri s)"
    stop s
    stop far
    clean
    identical model.raw
done
