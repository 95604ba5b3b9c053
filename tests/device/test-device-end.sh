#!/usr/bin/env bash
# An image on a block device takes all of the device, also with a last cluster
# that is not whole; then writes fail for lack of space, and it is sound.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

# A write that fails for lack of space may have been done in part.
cat > fill.py <<'END'
import nbd, sys
uri, step = sys.argv[1], int (sys.argv[2])
h = nbd.NBD ()
h.connect_uri (uri)
want = bytearray (open ("want.raw", "rb").read ())
failed = []
for i in range (0, len (want), step):
    data = (b"%08d" % (i + 1)) * (step // 8)
    try:
        h.pwrite (data, i)
        want[i:i + step] = data
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e
        failed.append ((i, data))
h.flush ()
assert failed, "the device did not fill"
for i, data in failed:
    got = h.pread (step, i)
    for j in range (0, step, 512):
        assert got[j:j + 512] in (data[j:j + 512], want[i + j:i + j + 512])
    want[i:i + step] = got
assert h.pread (len (want), 0) == want
open ("want.raw", "wb").write (want)
h.shutdown ()
END

# The second makes a larger refcount table necessary.
for i in "4M 64K" "9M 512" "$((4 * 1048576 + 20992)) 64K" \
         "$((4 * 1048576 + 20992)) 4K"; do
    read -r size cluster <<< "$i"
    echo "=== $size, clusters of $cluster"
    truncate -s "$size" "disk-$size-$cluster"
    loop_device "disk-$size-$cluster"
    bytes=$(blockdev --getsize64 "$device")
    unit=$(numfmt --from=iec "$cluster")
    qemu-img create -q -f qcow2 -o "cluster_size=$cluster" "$device" 16M
    truncate -s 0 want.raw
    truncate -s 16M want.raw
    serve_log s --filter="$qcow2ext" file "$device"
    "$PYTHON" fill.py "$(uri s)" 65536
    # Again, with what is left.
    "$PYTHON" fill.py "$(uri s)" 4096
    stop s
    cat s.log
    ! grep -v 'No space left\|the image cannot grow' s.log || fail "more than that was wrong"

    clean "$device"
    identical want.raw "$device"
    end=$(end_offset "$device")
    [ "$end" -le "$bytes" ] || fail "uses $end bytes of $bytes"
    # The last cluster that is whole, or one before it.
    [ "$end" -ge $((bytes / unit * unit - unit)) ] ||
        fail "uses only $end bytes of $bytes"
    [ "$(blockdev --getsize64 "$device")" = "$bytes" ]
done
