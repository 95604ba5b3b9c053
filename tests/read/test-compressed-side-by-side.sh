#!/usr/bin/env bash
# A request for many compressed clusters reads what lies side by side in the
# image with one request to the layer below, in whatever order the clusters
# lie; one that cannot be decoded fails the requests that want it and no other.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdkit --filter=log null --version
requires_nbd_module
cd "$tmp"

mixed_file ref.raw 3145728

# requests IMAGE OFFSET: how many requests a client's of 1 MiB become, when all
# that is needed of the tables has been read.
requests ()
{
    rm -f log
    served '"$PYTHON" - "$uri" '"$2" --filter=log file "$1" logfile=log <<'END'
import nbd, sys, time
ref = open ("ref.raw", "rb").read ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pread (512, 0)
before = open ("log").read ().count ("...Read ")
at = int (sys.argv[2])
assert h.pread (1 << 20, at) == ref[at:at + (1 << 20)]
print (open ("log").read ().count ("...Read ") - before)
END
}

for type in zlib zstd; do
    for order in "" "-W -m 16"; do
        # shellcheck disable=SC2086
        qemu-img convert -c $order -f raw -O qcow2 \
                 -o compression_type=$type ref.raw x.qcow2
        for at in 0 1048576 2096375; do
            n=$(requests x.qcow2 $at)
            echo "$type $order, at $at: $n requests"
            # 16 or 17 clusters, which with -W may lie anywhere.
            [ "$n" -ge 1 ] && { [ "$n" -le 4 ] || [ "$order" ]; } ||
                fail "$type $order: $n requests for 1 MiB"
        done
    done
done

# One cluster in the middle is damaged.
"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import struct
f = open ("x.qcow2", "r+b")
f.seek (40)
l1 = struct.unpack (">Q", f.read (8))[0]
f.seek (l1)
l2 = struct.unpack (">Q", f.read (8))[0] & (1 << 56) - 512
f.seek (l2 + 5 * 8)
entry = struct.unpack (">Q", f.read (8))[0]
assert entry & 1 << 62
host = entry & (1 << 54) - 1
f.seek (host)
f.write (b"\xff" * 16)
END
served '"$PYTHON" - "$uri"' file x.qcow2 <<'END'
import nbd, sys
ref = open ("ref.raw", "rb").read ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def fails (count, at):
    try:
        assert h.pread (count, at) == ref[at:at + count]
        return False
    except nbd.Error as e:
        assert e.errno == "EIO", e
        return True
assert fails (1 << 20, 0)
assert fails (2 * 65536, 4 * 65536)
assert fails (1, 5 * 65536)
assert not fails (5 * 65536, 0)
assert not fails (1 << 20, 6 * 65536)
END
