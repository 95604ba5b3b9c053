#!/usr/bin/env bash
# dir=: two hundred images and several clients that come, write, read and go at
# random; then all of them open at once.  What is read is right, all images are
# sound, and the soft limit of open files is no limit.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
requires test "$(ulimit -Hn)" -ge 4096
cd "$tmp"

mkdir store
qemu-img create -q -f qcow2 -o cluster_size=4K image 1M
for i in {0..199}; do
    cp image "store/$i"
done

cat > clients.py <<'END'
import nbd, random, sys, threading
path, seed, rounds = sys.argv[1], int (sys.argv[2]), int (sys.argv[3])
print ("seed", seed)
COUNT, CLIENTS, SIZE, BLOCK = 200, 4, 1 << 20, 4096
disks = [bytearray (SIZE) for i in range (COUNT)]
failed = []
def connect (i):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%d?socket=%s" % (i, path))
    return h
def client (n):
    # Each has images of its own, so that what they hold is known.
    rng = random.Random (seed + n)
    try:
        for _ in range (rounds):
            i = rng.randrange (n, COUNT, CLIENTS)
            h = connect (i)
            for _ in range (rng.randrange (6)):
                at = rng.randrange (SIZE // BLOCK - 16) * BLOCK
                blob = bytes ([rng.randrange (256)]) * (16 * BLOCK)
                if rng.randrange (2):
                    h.pwrite (blob, at)
                    disks[i][at : at + len (blob)] = blob
                elif h.pread (len (blob), at) != disks[i][at : at + len (blob)]:
                    raise Exception ("image %d has other data" % i)
            if rng.randrange (4):
                h.shutdown ()
            else:
                h.flush ()
                del h
    except Exception as e:
        failed.append (e)
threads = [threading.Thread (target = client, args = (n,))
           for n in range (CLIENTS)]
for t in threads:
    t.start ()
for t in threads:
    t.join ()
if failed:
    raise failed[0]
handles = [connect (i) for i in range (COUNT)]
for i, h in enumerate (handles):
    blob = bytes ([i]) * 65536
    h.pwrite (blob, 65536)
    disks[i][65536:131072] = blob
for i, h in enumerate (handles):
    assert h.pread (SIZE, 0) == disks[i], i
for h in handles:
    h.shutdown ()
END

(
    ulimit -Sn 256
    serve s --filter="$qcow2ext" file dir=store
)
cleanup_fn _kill_pidfile "$tmp/s.pid"
timeout 600 "$PYTHON" clients.py "$tmp/s.sock" "$stress_seed" \
        $((stress_ops / 20))
stop s
for i in {0..199}; do
    qemu-img check -q "store/$i" || fail "image $i is not sound"
done
