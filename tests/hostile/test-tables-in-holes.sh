#!/usr/bin/env bash
# What an image claims inside holes of a sparse file costs neither memory nor
# reading: L1 tables of snapshots and tables of bitmaps, gigabytes of them.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires nbdinfo --version
requires_nbd_module
requires test -r /proc/self/io
cd "$tmp"

# first_write IMAGE WANTED: the first write ends as wanted (done, refused),
# and the server stays small.
first_write ()
{
    echo "=== $1"
    rm -f a.sock
    start_nbdkit -P a.pid -U a.sock --filter="$qcow2ext" file "$1"
    "$PYTHON" - "$2" <<'END'
import sys
import nbd
h = nbd.NBD ()
h.connect_unix ("a.sock")
if h.is_read_only ():
    result = "refused"
else:
    h.pwrite (b"x" * 65536, 0)
    h.flush ()
    result = "done"
assert result == sys.argv[1], result
pid = open ("a.pid").read ().strip ()
status = dict (l.split (":", 1) for l in open (f"/proc/{pid}/status"))
io = dict (l.split (":", 1) for l in open (f"/proc/{pid}/io"))
print ("memory", status["VmHWM"].strip (), "read", io["rchar"].strip ())
assert int (status["VmHWM"].split ()[0]) < 200 << 10
assert int (io["rchar"]) < 256 << 20
END
    _kill_pidfile a.pid
}

# make IMAGE CLUSTER: a disk with one allocated cluster and a bitmap.
make ()
{
    qemu-img create -q -f qcow2 -o "cluster_size=$2" "$1" 1M
    qemu-io -f qcow2 -c 'write -P 1 0 64k' "$1" > /dev/null
}

for cluster in 512 65536; do
    make "s-$cluster.qcow2" "$cluster"
    "$PYTHON" - "s-$cluster.qcow2" "$cluster" <<'END'
import struct
import sys
n, base, size = 200, 1 << 32, 32 << 20
cluster = int (sys.argv[2])
table = b""
for i in range (n):
    name = str (i + 1).encode ()
    e = struct.pack (">QIHHIIQII", base + i * size, size // 8, len (name), 1,
                     0, 0, 0, 0, 16)
    e += struct.pack (">QQ", 0, 1 << 20) + name + b"s"
    table += e + b"\0" * (-len (e) % 8)
with open (sys.argv[1], "r+b") as f:
    pos = -(-f.seek (0, 2) // cluster) * cluster
    f.seek (pos)
    f.write (table)
    f.seek (60)
    f.write (struct.pack (">IQ", n, pos))
    f.truncate (base + n * size)
END
    first_write "s-$cluster.qcow2" "done"
done

# bitmap_in_hole IMAGE ENTRIES: its table has so many entries, in a hole.
bitmap_in_hole ()
{
    make "$1" 65536
    qemu-img bitmap --add "$1" b
    "$PYTHON" - "$1" "$2" <<'END'
import struct
import sys
entries = int (sys.argv[2])
with open (sys.argv[1], "r+b") as f:
    image = f.read ()
    at = struct.unpack_from (">I", image, 100)[0]
    while struct.unpack_from (">I", image, at)[0] != 0x23852875:
        at += 8 + (struct.unpack_from (">I", image, at + 4)[0] + 7) // 8 * 8
    directory = struct.unpack_from (">Q", image, at + 24)[0]
    f.seek (directory)
    f.write (struct.pack (">QI", 1 << 32, entries))
    f.truncate ((1 << 32) + entries * 8)
END
}
# QEMU takes no more than 512 MiB of bits.
bitmap_in_hole b.qcow2 $((1 << 28))
first_write b.qcow2 refused
bitmap_in_hole c.qcow2 $(((512 << 20) / 65536))
first_write c.qcow2 "done"
# What was recorded is stored.  (QEMU refuses a table that is too long.)
nbdkit -r -U - --filter="$qcow2ext" file c.qcow2 qcow2ext-bitmap=b \
       --run 'nbdinfo --map "$uri"' | tee map
grep -qE '^ *0 +65536 +0 ' map
