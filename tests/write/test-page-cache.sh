#!/usr/bin/env bash
# What an earlier server could not write may be in the page cache and not on the
# disk.  So the pages of both files are dropped before they are read for a client
# that may write: once, and not for one that reads.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires strace -y -e trace=fadvise64,pread64 true
requires_nbd_module
cd "$tmp"

cat > order.py <<'END'
import re, sys
drops, wanted = {}, sys.argv[2:]
reads = {}
for line in open (sys.argv[1]):
    m = re.search (r"(fadvise64|pread64)\(\d+<[^>]*/([^/>]+)>", line)
    if not m or m[2] not in wanted:
        continue
    if m[1] == "pread64":
        reads[m[2]] = reads.get (m[2], 0) + 1
    elif "POSIX_FADV_DONTNEED" in line:
        drops[m[2]] = drops.get (m[2], 0) + 1
        # The image was read at the start, to see whether it is one.
        if m[2] != "x.qcow2" and reads.get (m[2]):
            sys.exit ("%s was read before" % m[2])
print (drops, reads)
for f in wanted:
    if not reads.get (f):
        sys.exit ("%s was not read at all" % f)
if drops != {f: 1 for f in wanted}:
    sys.exit ("not dropped, or more than once")
END

# traced NBDKIT-ARGS...: three clients, one after another.
traced ()
{
    local i
    rm -f s.pid s.sock trace
    # A sanitizer's leak check does not work under strace.
    ASAN_OPTIONS=detect_leaks=0 \
    strace -f -y -e trace=fadvise64,pread64 -o trace \
           nbdkit -f -P "$tmp/s.pid" -U "$tmp/s.sock" "$@" \
           --filter="$qcow2ext" file x.qcow2 < /dev/null &
    cleanup_fn _kill_pid $!
    cleanup_fn _kill_pidfile "$tmp/s.pid"
    wait_until "nbdkit serves" [ -s s.pid ]
    for i in 1 2 3; do
        nbdsh -u "$(uri s)" -c 'h.pread (65536, 0)' -c 'h.shutdown ()'
    done
    stop s
}

for opts in data_file=x.data cluster_size=64K; do
    new_image -o $opts x.qcow2 1M
    qemu-io -f qcow2 -c 'write 0 1M' x.qcow2
    files=(x.qcow2)
    [ ! -e x.data ] || files+=(x.data)
    traced
    "$PYTHON" order.py trace "${files[@]}"
    traced -r
    ! grep POSIX_FADV_DONTNEED trace || fail "dropped for a reader"
done
