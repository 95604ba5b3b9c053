#!/usr/bin/env bash
# While new refcount blocks are being flushed, which may take long, other requests
# go on: writes in place, writes that allocate, zeroing, flushes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
export FAIL_IO=$tmp/control

cat > beside.py <<'END'
import nbd, os, sys, time
uri, control = sys.argv[1:]
KIB, PIECE = 1 << 10, 16 << 10
h, other = nbd.NBD (), nbd.NBD ()
h.connect_uri (uri)
other.connect_uri (uri)
model = bytearray (h.get_size ())
end = 0

def append ():
    global end
    model[end:end + PIECE] = bytes ([1 + end // PIECE % 255]) * PIECE
    end += PIECE
    return h.aio_pwrite (model[end - PIECE:end], end - PIECE)

def wait (cookie):
    while not h.aio_command_completed (cookie):
        h.poll (-1)

def others (at):
    """How long other requests take."""
    begin = time.monotonic ()
    other.pwrite (b"i" * 512, 0)
    other.pwrite (b"a" * 512, at)
    other.zero (512, 512)
    other.flush ()
    model[0:512], model[at:at + 512], model[512:1024] = b"i" * 512, b"a" * 512, bytes (512)
    return time.monotonic () - begin

while end < 3 << 20:
    wait (append ())
h.flush ()
alone = others (len (model) - 512)
with open (control + ".new", "w") as f:
    f.write ("fdatasync x.qcow2 1 0\n")     # waits until the file has gone
os.rename (control + ".new", control)
# The request that makes the blocks waits for them.
while not os.path.exists (control + ".met"):
    cookie = append ()
    for _ in range (500):
        if h.aio_command_completed (cookie) or os.path.exists (control + ".met"):
            break
        h.poll (10)
held = h.aio_in_flight ()
assert held == 1, "nothing waits for the flush"
beside = max (others (len (model) - 1024 * i) for i in range (2, 10))
assert h.aio_in_flight () == 1
os.unlink (control)
wait (cookie)
for _ in range (20):
    wait (append ())
assert h.pread (1 << 20, 0) == model[:1 << 20]
h.shutdown ()
other.shutdown ()
with open ("model", "wb") as f:
    f.write (model)
print ("a write in place, one that allocates, a zero and a flush: alone %.1f ms, "
       "at most %.1f beside" % (alone * 1000, beside * 1000))
END

for opts in cluster_size=512 cluster_size=4K,refcount_bits=64; do
    new_image -o $opts x.qcow2 64M
    rm -f "$FAIL_IO"*
    serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2
    timeout 120 "$PYTHON" beside.py "$(uri s)" "$FAIL_IO" || fail "$opts: waited"
    stop s
    clean
    qemu-img compare -f raw -F qcow2 model x.qcow2
done
