#!/usr/bin/env bash
# A limit of file sizes (ulimit -f) is a want of space for the request that meets
# it, not the end of the server, when the image grows and when its data file does.
# Programs that the server runs are not affected.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# What fits is there, and the rest fails, again and again.
cat > fill.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
size = h.get_size ()
want = bytearray (open ("want.raw", "rb").read ())
failed = 0
for i in range (0, size, 65536):
    data = bytes ([i >> 16]) * 65536
    try:
        h.pwrite (data, i)
        want[i:i + 65536] = data
    except nbd.Error as e:
        assert e.errno in ("ENOSPC", "EFBIG"), e
        failed += 1
        want[i:i + 65536] = h.pread (65536, i)
assert failed, "there was no limit"
h.flush ()
assert h.pread (size, 0) == want
open ("want.raw", "wb").write (want)
h.shutdown ()
END

# In KiB; the server's own files are smaller.
limited ()
{
    ( trap - EXIT; ulimit -S -f "$1"; shift; exec "$@" )
}

# run IMAGE-OPTIONS NBDKIT-ARGS...
run ()
{
    new_image -o "$1" x.qcow2 4M
    truncate -s 0 want.raw
    truncate -s 4M want.raw
    rm -f s.pid s.sock
    limited 2048 nbdkit -P s.pid -U "$tmp/s.sock" --filter="$qcow2ext" file \
            x.qcow2 "${@:2}" < /dev/null
    cleanup_fn _kill_pidfile "$tmp/s.pid"
    wait_until "nbdkit serves" [ -s s.pid ]
    # A second time, after the limit was met.
    "$PYTHON" fill.py "$(uri s)"
    "$PYTHON" fill.py "$(uri s)"
    stop s
    clean
    identical want.raw
}
run cluster_size=64K
run data_file=x.data
run data_file=x.data,data_file_raw=off,preallocation=metadata

# A raw data file gets the size of the disk at the first change: none is made.
new_image -o data_file=x.data x.qcow2 4M
qemu-img create -q -f qcow2 -o data_file=x.data,data_file_raw=on x.qcow2 4M
truncate -s 0 x.data
limited 2048 nbdkit -U - --filter="$qcow2ext" file x.qcow2 --run '
    "$PYTHON" -m nbd -u "$uri" -c "
try:
    h.pwrite (b\"x\" * 512, 0)
    raise AssertionError
except nbd.Error as e:
    assert e.errno in (\"ENOSPC\", \"EFBIG\"), e
assert h.pread (512, 0) == bytes (512)
"'

# What the server runs still dies of it.
new_image x.qcow2 1M
nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
       --run 'grep -E "Sig(Ign|Blk)" /proc/self/status' > mask
# Bit 24 is SIGXFSZ.
while read -r _ bits; do
    [ $((0x$bits >> 24 & 1)) = 0 ] || fail "a child ignores or blocks SIGXFSZ"
done < mask
[ "$(wc -l < mask)" = 2 ] || fail "no masks"
