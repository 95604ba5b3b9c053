#!/usr/bin/env bash
# An error while bitmaps are closed leaves some of them closed and some not.
# Whatever is written and flushed then must not be missing from a bitmap that
# is believed after the server was killed.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdkit eval --version
requires_nbd_module
cd "$tmp"

new_image x.qcow2 16M
for b in b0 b1 b2; do
    qemu-img bitmap --add x.qcow2 $b
done
# Space for what is written and for the bitmaps, as it cannot grow.
truncate -s 4M x.qcow2

cat > flags.py <<'END'
# Offset and value of the flags of each bitmap.
import struct
d = open ("x.qcow2", "rb").read (1 << 20)
p, = struct.unpack_from (">I", d, 100)
while True:
    kind, length = struct.unpack_from (">II", d, p)
    if kind == 0x23852875:
        break
    assert kind, "no bitmaps"
    p += 8 + (length + 7) // 8 * 8
n, _, _, q = struct.unpack_from (">IIQQ", d, p + 8)
for i in range (n):
    flags, = struct.unpack_from (">I", d, q + 12)
    name, extra = struct.unpack_from (">HI", d, q + 18)
    print (q + 12, flags)
    q += (24 + extra + name + 7) // 8 * 8
END
"$PYTHON" flags.py | tee flags
[ "$(wc -l < flags)" = 3 ]
flags=$(sed -n '2s/ .*//p' flags)

export image=$tmp/x.qcow2 broken=$tmp/broken flags
cp x.qcow2 new.qcow2

for mended in before after; do
    cp new.qcow2 x.qcow2
    rm -f broken broken.seen
    serve s --filter="$qcow2ext" eval \
        get_size='stat -c %s "$image"' \
        pread='dd if="$image" iflag=skip_bytes,count_bytes skip=$4 count=$3 \
                  bs=64K status=none' \
        pwrite='if [ -e "$broken" ] && [ "$4" -le "$flags" ] &&
                   [ $(($4 + $3)) -gt "$flags" ] && [ "$3" -le 512 ]; then
                    cat > /dev/null
                    touch "$broken.seen"
                    echo EIO broken >&2; exit 1
                fi
                dd of="$image" oflag=seek_bytes conv=notrunc seek=$4 bs=64K \
                   iflag=fullblock status=none' \
        can_write='exit 0' can_flush='exit 0' flush='exit 0'
    cat > half.py <<'END'
import nbd, os, signal, sys, time
uri, pid, mended = sys.argv[1], int (sys.argv[2]), sys.argv[3]
h = nbd.NBD ()
h.connect_uri (uri)
h.pwrite (b"a" * 65536, 0)
h.flush ()
open ("broken", "w").close ()
# The bitmaps are closed when nobody has written for a while.
for i in range (1200):
    if os.path.exists ("broken.seen"):
        break
    time.sleep (0.1)
assert os.path.exists ("broken.seen"), "bitmaps were not closed"
if mended == "before":
    os.unlink ("broken")
acked = False
try:
    h.pwrite (b"b" * 65536, 8 << 20)
    h.flush ()
    acked = True
except nbd.Error as e:
    print (e)
    assert mended == "after", "a write failed although nothing is broken"
os.kill (pid, signal.SIGKILL)
print ("acknowledged" if acked else "refused")
open ("acked", "w").write (str (acked))
END
    "$PYTHON" half.py "$(uri s)" "$(< s.pid)" $mended
    "$PYTHON" flags.py | tee now
    if [ "$(< acked)" = True ]; then
        # In use, every one of them.
        while read -r _ value; do
            [ $((value & 1)) = 1 ] || fail "a bitmap is believed"
        done < now
    fi
    no_errors
done
