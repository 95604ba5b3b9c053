#!/usr/bin/env bash
# dir=: two hundred images and eight clients that come, write, read and go at
# random; then all of them open at once.  What is read is right, all images are
# sound, the soft limit of open files is no limit, and the server takes little more
# memory than nbdkit's file plugin.  One that is killed leaves sound images.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
requires test "$(ulimit -Hn)" -ge 4096
cd "$tmp"

seconds=60
[ -z "${QCOW2EXT_TEST_SHORT:-}" ] || seconds=1

cat > clients.py <<'END'
import nbd, random, sys, threading, time
path, seed, seconds = sys.argv[1], int (sys.argv[2]), int (sys.argv[3])
print ("seed", seed)
COUNT, CLIENTS, SIZE, BLOCK = 200, 8, 1 << 20, 4096
disks = [bytearray (SIZE) for i in range (COUNT)]
failed = []
opened = 0
end = time.monotonic () + seconds
def connect (i):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%d?socket=%s" % (i, path))
    return h
def client (n):
    # Each has images of its own, so that what they hold is known.
    global opened
    rng = random.Random (seed + n)
    try:
        while time.monotonic () < end:
            i = rng.randrange (n, COUNT, CLIENTS)
            h = connect (i)
            opened += 1
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
print ("%d times opened" % opened)
END

serve_images ()
{
    (
        ulimit -Sn 256
        serve s --filter="$qcow2ext" file dir=store
    )
    cleanup_fn _kill_pidfile "$tmp/s.pid"
}

# memory: of the server so far, at most, in KiB.
memory ()
{
    sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(< s.pid)/status"
}

clients ()
{
    timeout 600 "$PYTHON" clients.py "$tmp/s.sock" "$stress_seed" "$1"
}

# sound: all images are, but for leaks of a server that was killed.
sound ()
{
    local i status
    for i in {0..199}; do
        status=0
        qemu-img check -q "store/$i" || status=$?
        [ $status = 0 ] || { [ "$1" = killed ] && [ $status = 3 ]; } ||
            fail "image $i is not sound"
    done
}

mkdir raw store
qemu-img create -q -f qcow2 -o cluster_size=4K image 1M
for i in {0..199}; do
    truncate -s 1M "raw/$i"
    cp image "store/$i"
done
serve s file dir=raw
clients "$seconds"
plain=$(memory)
stop s
serve_images
clients "$seconds"
ours=$(memory)
stop s
sound ended
echo "memory: $ours KiB, and of nbdkit file dir=: $plain KiB"
caches=$((32 + 16))
[ -n "$QCOW2EXT_TEST_UNDER" ] ||
    [ $((ours - plain)) -le $(((64 + caches) << 10)) ] ||
    fail "so much more memory"

for i in {0..199}; do
    cp image "store/$i"
done
many_written ()
{
    [ "$(find store -newer begun | wc -l)" -ge 30 ]
}
serve_images
touch begun
clients 60 > out 2>&1 &
client=$!
wait_until "thirty images are written to" many_written
kill -9 "$(< s.pid)"
! wait $client || fail "the client has not noticed"
sound killed
