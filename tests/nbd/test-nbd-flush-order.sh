#!/usr/bin/env bash
# The data is flushed on its server before anything in the image refers to it;
# and a flush that fails there fails here.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
requires nbdkit eval --version
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
truncate -s 16M x.data

# At each flush, a copy of the image as it is then.
serve far eval \
    get_size='echo 16M' can_write='exit 0' can_flush='exit 0' \
    pread="dd if=$tmp/x.data skip=\$4 count=\$3 iflag=skip_bytes,count_bytes status=none" \
    pwrite="dd of=$tmp/x.data seek=\$4 conv=notrunc oflag=seek_bytes status=none" \
    flush="[ ! -e $tmp/broken ] || { echo EIO it is broken >&2; exit 1; }
           cp $tmp/x.qcow2 $tmp/at-flush; echo x >> $tmp/flushes"
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"

cat > client.py <<'END'
import errno, json, nbd, os, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def allocated (image, at):
    out = subprocess.check_output (["qemu-img", "map", "--output=json",
                                    "-f", "qcow2", "-U", image])
    return any (e["data"] and e["start"] <= at < e["start"] + e["length"]
                for e in json.loads (out))
h.pwrite (b"1" * 65536, 0)
h.flush ()
for i in range (1, 5):
    h.pwrite (b"1" * 65536, i << 20)
    os.unlink ("at-flush")
    h.flush ()
    assert not allocated ("at-flush", i << 20), "the image came first"
    assert allocated ("x.qcow2", i << 20)
h.pwrite (b"1" * 65536, 9 << 20)
open ("broken", "w").close ()
try:
    h.flush ()
except nbd.Error as e:
    assert e.errnum == errno.EIO, e
else:
    sys.exit ("flush did not fail")
assert not allocated ("x.qcow2", 9 << 20)
h.shutdown ()
END
"$PYTHON" client.py "$(uri s)"
stop s
no_errors
