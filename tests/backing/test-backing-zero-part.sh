#!/usr/bin/env bash
# Zeroing part of a cluster whose rest reads as zeros, over a backing file that
# is zero there, makes a zero cluster: no data is allocated.  Where the rest is
# data, it stays.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > zero.py <<'END2'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
size = h.get_size ()
h.zero (1000, 5000, nbd.CMD_FLAG_NO_HOLE)
h.zero (4096, 65536 + 4096)
h.zero (size % 65536 - 512, size - size % 65536 + 512) # the disk's end
h.zero (100, 3 * 65536 + 10)    # data around it in the backing file
h.zero (65536, 4 * 65536)       # all the data, and nothing of the rest
h.zero (10000, 6 * 65536)       # data in it, and nothing around it
assert h.pread (3 * 65536, 0) == bytes (3 * 65536)
assert h.pread (65536, 3 * 65536) == b"a" * 10 + bytes (100) + b"a" * 65426
assert h.pread (65536, 6 * 65536) == bytes (65536)
h.flush ()
h.shutdown ()
END2

size=$((8 * 65536 + 3000))
truncate -s $size base.raw
"$PYTHON" -c 'print ("a" * 65536, end="")' |
    dd of=base.raw bs=65536 seek=3 conv=notrunc status=none
"$PYTHON" -c 'print ("b" * 4096, end="")' |
    dd of=base.raw bs=4096 seek=96 conv=notrunc status=none
qemu-img convert -f raw -O qcow2 -o cluster_size=4096 base.raw base.qcow2
for format in raw qcow2; do
    for options in cluster_size=65536 extended_l2=on,cluster_size=131072; do
        new_image -o "$options" -b "base.$format" -F "$format" x.qcow2
        cp base.raw ref.raw
        serve s --filter="$qcow2ext" file x.qcow2
        "$PYTHON" zero.py "$(uri s)" || fail "$format $options"
        stop s
        clean
        # Only what has data around it was written.
        qemu-img map --output=json x.qcow2 > map.json
        "$PYTHON" - <<'END2' || fail "$format $options: $(cat map.json)"
import json
data = [m for m in json.load (open ("map.json"))
        if m["depth"] == 0 and m["data"]]
assert all (3 * 65536 - 65536 <= m["start"]
            and m["start"] + m["length"] <= 4 * 65536 for m in data), data
assert data
END2
    done
done
