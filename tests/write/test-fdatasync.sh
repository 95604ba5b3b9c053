#!/usr/bin/env bash
# How often the disk has to wait: a flush after writing to what is allocated takes
# one fdatasync, and one after allocation at most three; flushes at the same time
# share a commit.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace -f -o /dev/null true
requires_nbd_module
cd "$tmp"

cat > client.py <<'END'
import nbd, os, sys, time
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def count ():
    with open ("trace") as f:
        return sum ("sync(" in line for line in f)
def flush (what, least, most):
    before = count ()
    h.flush ()
    n = count () - before
    print (what, n)
    assert least <= n <= most, "%s: %d syncs" % (what, n)
# The first change of a session has more to do.
h.pwrite (b"0" * 65536, 0)
h.flush ()
for i in range (4):
    h.pwrite (b"1" * 4096, 4096 * i)
    flush ("data", 1, 1)
    flush ("nothing", 0, 1)
    h.pwrite (b"2" * 65536, (1 + i) << 20)
    flush ("allocated", 1, 3)
    for j in range (5):
        h.pwrite (b"3" * 4096, 4096 * j)
    flush ("data", 1, 1)
# 16 at a time is what the server takes from one connection.  Whether they really
# are at the same time is up to the machine, so it gets some tries.
for attempt in range (8):
    before = count ()
    for i in range (16):
        h.aio_pwrite (b"4" * 4096, (16 + i) << 20)
    ends = [h.aio_flush () for i in range (16)]
    while ends:
        h.poll (-1)
        ends = [e for e in ends if not h.aio_command_completed (e)]
    n = count () - before
    print ("16 flushes", n)
    assert n >= 1
    if n < 16:
        break
else:
    sys.exit ("flushes at the same time do not share a commit")
h.shutdown ()
END

for opts in data_file=x.data "data_file=x.data,data_file_raw=on" \
            cluster_size=64K; do
    new_image -o "$opts" x.qcow2 64M
    rm -f trace s.sock
    # A sanitizer's leak check does not work under strace.
    ASAN_OPTIONS=detect_leaks=0 \
    strace -f -e trace=fdatasync,fsync,sync_file_range,syncfs -o trace \
           nbdkit -f -P "$tmp/s.pid" -U "$tmp/s.sock" --filter="$qcow2ext" \
           file x.qcow2 < /dev/null &
    pid=$!
    cleanup_fn _kill_pid "$pid"
    cleanup_fn _kill_pidfile "$tmp/s.pid"
    wait_until "nbdkit serves" [ -s s.pid ]
    "$PYTHON" client.py "$(uri s)"
    stop s
    clean
done
