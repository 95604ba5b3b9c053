#!/usr/bin/env bash
# The server is killed while clients write: the image has no errors, and what was
# flushed before is there.
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
# shellcheck source=tests/writing.sh
source "$srcdir/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# Each of three clients has its own third of the disk, and notes after each flush
# what it is sure of.  What was sent after that may be there or not, sector by
# sector, and a trimmed sector may be zero.
cat > client.py <<'END'
import nbd, os, pickle, random, sys
uri, number, seed = sys.argv[1], int (sys.argv[2]), sys.argv[3]
rng = random.Random (seed + sys.argv[2])
h = nbd.NBD ()
h.connect_uri (uri)
third = h.get_size () // 3 // 512
first = number * third
# For each sector all that it may have.
may = [{bytes (h.pread (512, (first + i) * 512))} for i in range (third)]
last = [next (iter (s)) for s in may]
zero = bytes (512)
def save ():
    with open ("note%d.new" % number, "wb") as f:
        pickle.dump ((first, may), f)
    os.rename ("note%d.new" % number, "note%d" % number)
save ()
while True:
    ops = []
    for i in range (rng.randint (2, 12)):
        n = int (200 ** rng.random ())
        at = rng.randrange (third - n)
        kind = rng.choice (["write", "write", "zero", "trim"])
        blob = rng.randbytes (512 * n) if kind == "write" else bytes (512 * n)
        for j in range (n):
            may[at + j].add (blob[j * 512:j * 512 + 512])
        ops.append ((kind, at, n, blob))
    # It may be killed while this is done.
    save ()
    try:
        for kind, at, n, blob in ops:
            if kind == "write":
                h.pwrite (blob, (first + at) * 512)
            elif kind == "zero":
                h.zero (512 * n, (first + at) * 512)
            else:
                h.trim (512 * n, (first + at) * 512)
                blob = bytes (h.pread (512 * n, (first + at) * 512))
            for j in range (n):
                last[at + j] = blob[j * 512:j * 512 + 512]
        h.flush ()
    except nbd.Error:
        sys.exit (0)
    for kind, at, n, blob in ops:
        for j in range (n):
            may[at + j] = {last[at + j]}
    save ()
END

cat > judge.py <<'END'
import pickle, sys
with open ("now.raw", "rb") as f:
    now = f.read ()
for number in range (3):
    first, may = pickle.load (open ("note%d" % number, "rb"))
    for i, allowed in enumerate (may):
        at = (first + i) * 512
        if now[at:at + 512] not in allowed:
            sys.exit ("wrong data at %#x, %d allowed" % (at, len (allowed)))
END

for opts in cluster_size=4K data_file=x.data,data_file_raw=on; do
    new_image -o $opts x.qcow2 1536K
    for round in 1 2 3 4; do
        rm -f note*
        serve s --filter="$qcow2ext" file x.qcow2
        clients=()
        for n in 0 1 2; do
            "$PYTHON" client.py "$(uri s)" $n "$opts$round" &
            clients+=($!)
            cleanup_fn _kill_pid $!
        done
        for n in 0 1 2; do
            while [ ! -e note$n ]; do
                _running "${clients[n]}" || fail "a client ended"
                sleep 0.02
            done
        done
        sleep "0.$((RANDOM % 6 + 3))"
        kill -9 "$(< s.pid)"
        wait "${clients[@]}" || fail "a client failed"
        rm s.pid
        no_errors
        qemu-img convert -f qcow2 -O raw x.qcow2 now.raw
        "$PYTHON" judge.py || fail "round $round"
        case $opts in
            *raw*) same_file now.raw x.data ;;
        esac
    done
    # Whatever leaked can be had back.
    qemu-img check -q -r leaks -f qcow2 x.qcow2
    clean
done
