#!/usr/bin/env bash
# Bitmaps record what is written through us, no more and no less: QEMU reports
# exactly the granules that were touched, and can go on working with them.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-nbd --version
requires_nbd_module
cd "$tmp"

# What is written goes to touched.json as ranges, and to model.raw.
cat > change.py <<'END'
import json, nbd, os, random, sys
uri, seed = sys.argv[1:]
rng = random.Random (seed)
with open ("model.raw", "rb") as f:
    model = bytearray (f.read ())
touched = json.load (open ("touched.json"))
h = nbd.NBD ()
h.connect_uri (uri)
size = h.get_size ()
for i in range (25):
    n = 1 + int (400000 ** rng.random ())
    at = rng.randrange (size - n)
    kind = rng.choice (["write", "write", "zero", "trim"])
    if kind == "write":
        blob = rng.randbytes (n)
        h.pwrite (blob, at)
        model[at:at + n] = blob
    elif kind == "zero":
        h.zero (n, at, rng.choice ([0, nbd.CMD_FLAG_NO_HOLE]))
        model[at:at + n] = bytes (n)
    else:
        h.trim (n, at)
        model[at:at + n] = h.pread (n, at)
    touched.append ((at, n))
    if i == 12:
        h.flush ()
with open ("model.raw", "wb") as f:
    f.write (model)
json.dump (touched, open ("touched.json", "w"))
h.shutdown ()
END

# expected GRANULARITY < touched.json; reported < nbdinfo's map.
cat > ranges.py <<'END'
import json, sys
what, size = sys.argv[1], 16 << 20
data = json.load (sys.stdin)
if what == "map":
    dirty = [(e["offset"], e["length"]) for e in data if e["type"] & 1]
elif what == "data":
    dirty = [(e["offset"], e["length"]) for e in data if not e["type"] & 1]
else:
    g = int (what)
    dirty = [(at // g * g, -(-(at + n) // g) * g - at // g * g)
             for at, n in data]
merged = []
for at, n in sorted (dirty):
    end = min (size, at + n)
    if merged and merged[-1][1] >= at:
        merged[-1][1] = max (merged[-1][1], end)
    else:
        merged.append ([at, end])
for at, end in merged:
    print ("%#x-%#x" % (at, end))
END

ask ()
{
    nbdinfo --json --map="qemu:dirty-bitmap:$1" \
            "nbd+unix:///?socket=$tmp/q.sock" > map.json
}

# qemu_says NAME: dirty ranges, says QEMU.
qemu_says ()
{
    local pid
    rm -f q.sock
    qemu-nbd -r -f qcow2 -B "$1" -k "$tmp/q.sock" x.qcow2 &
    pid=$!
    cleanup_fn _kill_pid "$pid"
    # The socket is there before it is listened on, and the first client that is
    # let in is the last.
    wait_until "qemu-nbd -B $1 says what it is" ask "$1"
    wait "$pid" || fail "qemu-nbd -B $1"
    "$PYTHON" ranges.py map < map.json
}

# exact NAME GRANULARITY [TOUCHED]
exact ()
{
    "$PYTHON" ranges.py "$2" < "${3:-touched.json}" > expected
    qemu_says "$1" > says
    diff expected says || fail "bitmap $1 is not what was written"
    nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 "qcow2ext-bitmap=$1" \
           --run "nbdinfo --json --map \"\$uri\"" |
        "$PYTHON" ranges.py data | diff expected - ||
        fail "qcow2ext-bitmap=$1 differs from QEMU"
}

try ()
{
    new_image -o "$1" x.qcow2 16M
    qemu-io -f qcow2 -c 'write -P 7 1M 5M' x.qcow2 > /dev/null
    qemu-img convert -f qcow2 -O raw x.qcow2 model.raw
    qemu-img bitmap --add -g 512 x.qcow2 small
    qemu-img bitmap --add -g 64K x.qcow2 middle
    qemu-img bitmap --add -g 2M x.qcow2 large
    qemu-img bitmap --add -g 64K --disable x.qcow2 off
    echo '[]' > touched.json
    echo '[]' > nothing.json

    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" change.py "$(uri s)" 1
    clean
    exact small 512
    exact middle 65536
    exact large 2097152
    exact off 65536 nothing.json
    # QEMU writes, then another session of ours.
    qemu-io -f qcow2 -c 'write -P 9 15M 70000' x.qcow2 > /dev/null
    "$PYTHON" - <<'EOF'
import json
t = json.load (open ("touched.json")) + [(15 << 20, 70000)]
json.dump (t, open ("touched.json", "w"))
with open ("model.raw", "r+b") as f:
    f.seek (15 << 20)
    f.write (b"\t" * 70000)
EOF
    "$PYTHON" change.py "$(uri s)" 2
    clean
    identical model.raw
    exact small 512
    exact large 2097152
    exact off 65536 nothing.json
    stop s

    qemu-img bitmap --merge small x.qcow2 off
    exact off 65536
    qemu-img bitmap --clear x.qcow2 small
    qemu-img bitmap --remove x.qcow2 large
    clean
    echo '[]' > touched.json
    serve s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" change.py "$(uri s)" 3
    stop s
    clean
    exact small 512
    identical model.raw
}

try cluster_size=64K
try cluster_size=4K
try data_file=x.data
try data_file=x.data,data_file_raw=on
