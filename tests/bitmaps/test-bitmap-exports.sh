#!/usr/bin/env bash
# With qcow2ext-exports=all each bitmap is an export beside the disk.  A bitmap
# that records what clients write is never shown as it was before: that fails until
# they have gone.  One that is disabled is shown, and not read.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > client.py <<'END'
import errno, json, nbd, subprocess, sys
sock = sys.argv[1]
def connect (name):
    h = nbd.NBD ()
    h.add_meta_context ("base:allocation")
    h.set_export_name (name)
    h.set_full_info (True)
    h.connect_unix (sock)
    return h
def changed (h):
    found = []
    def extent (context, offset, entries, err):
        for n, flags in zip (entries[::2], entries[1::2]):
            if flags == 0 and found and sum (found[-1]) == offset:
                found[-1] = (found[-1][0], found[-1][1] + n)
            elif flags == 0:
                found.append ((offset, n))
            offset += n
        return 0
    h.block_status (h.get_size (), 0, extent)
    return found
def fails (f, *args):
    try:
        r = f (*args)
    except nbd.Error as e:
        return
    sys.exit ("%s did not fail: %s" % (f, r))
K = 65536

def listed ():
    out = subprocess.check_output (["nbdinfo", "--list", "--json",
                                    "nbd+unix:///?socket=" + sock])
    return {e["export-name"]: e.get ("description", "")
            for e in json.loads (out)["exports"]}
names = listed ()
assert set (names) == {"", "bitmap:on", "bitmap:off"}, names
assert "qcow2 v3" in names[""], names
assert "%d bytes changed, records" % K in names["bitmap:on"], names
assert "granularity 65536 bytes, 0 bytes changed, disabled" \
    in names["bitmap:off"], names

# Beside a disk that nobody has changed.
disk, on, off = connect (""), connect ("bitmap:on"), connect ("bitmap:off")
assert not disk.is_read_only () and on.is_read_only ()
assert "records" in on.get_export_description ()
assert changed (on) == [(0, K)] and changed (off) == []
assert on.pread (K, 0) == disk.pread (K, 0)

# It is changed: what was read of the bitmap is not true any more.
disk.pwrite (b"x" * K, 4 * K)
fails (changed, on)
fails (on.pread, 512, 0)
fails (off.pread, 512, 0)
assert changed (off) == []
on2 = connect ("bitmap:on")
fails (changed, on2)
off2 = connect ("bitmap:off")
assert changed (off2) == []
assert set (listed ()) == set (names)
disk.flush ()
fails (changed, on)
fails (changed, connect ("bitmap:on"))
disk.shutdown ()

# They have gone.  What was connected is as old as it was.
fails (changed, on)
fails (changed, on2)
fails (on.pread, 512, 0)
h = connect ("bitmap:on")
assert changed (h) == [(0, K), (4 * K, K)], changed (h)
assert h.pread (K, 4 * K) == b"x" * K
assert "%d bytes changed" % (2 * K) in listed ()["bitmap:on"]
for c in on, on2, off, off2, h:
    c.shutdown ()
for name in "bitmap:none", "bitmap:", "bitmap", "on":
    fails (connect, name)
END

for opts in cluster_size=64K data_file=x.data,data_file_raw=on; do
    new_image -o $opts x.qcow2 4M
    qemu-img bitmap --add -g 64K x.qcow2 on
    qemu-img bitmap --add -g 64K --disable x.qcow2 off
    qemu-io -f qcow2 -c 'write -P 1 0 64k' x.qcow2
    serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
    "$PYTHON" client.py s.sock
    stop s
    cat s.log
    grep 'bitmap:on; connect to it anew when they have gone' s.log ||
        fail "the message does not say when it can be had"
    clean

    # One that is inconsistent is listed, and not shown.
    serve s --filter="$qcow2ext" file x.qcow2
    nbdsh -u "$(uri s)" -c 'h.pwrite (b"k" * 512, 0)' -c "
import os, signal
os.kill ($(< s.pid), signal.SIGKILL)"
    rm s.pid
    serve s -r --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
    nbdinfo --list "$(uri s)" | tee list
    grep 'bitmap "on".*inconsistent' list || fail "that is not said"
    expect_fail . nbdinfo --map "nbd+unix:///bitmap:on?socket=$tmp/s.sock"
    nbdinfo --map "nbd+unix:///bitmap:off?socket=$tmp/s.sock"
    stop s
done
