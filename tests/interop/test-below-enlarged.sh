#!/usr/bin/env bash
# An image that is enlarged while it is served, by a plugin that has a connection
# for each open context: a flush goes to all connections that were written to.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
plugin=$abs_top_builddir/tests/interop/.libs/nbdkit-connections-plugin.so

cat > client.py <<'END'
import nbd, os, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
C = 65536
done = [0]
def fill (data):
    """Writes until there is no space."""
    try:
        while done[0] < h.get_size () // C:
            h.pwrite (data * C, done[0] * C)
            done[0] += 1
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e
def not_flushed ():
    """The connections with changes after their last flush, and all that have
    been written to."""
    dirty, used = set (), set ()
    with open ("log") as f:
        for line in f:
            what, connection = line.split ()
            if what == "W":
                dirty.add (connection)
                used.add (connection)
            else:
                dirty.discard (connection)
    return dirty, used
fill (b"1")
h.flush ()
assert not not_flushed ()[0]
for i in range (2):
    before = done[0]
    # In place, through the connection that there is.
    h.pwrite (b"2" * C, i * C)
    os.truncate ("x.qcow2", os.stat ("x.qcow2").st_size + (1 << 20))
    fill (b"3")
    assert done[0] > before, "the image was not enlarged"
    h.flush ()
    dirty, used = not_flushed ()
    print ("written to: %s; not flushed: %s" % (sorted (used), sorted (dirty)))
    assert len (used) >= i + 2
    assert not dirty, "changes were not flushed"
# Now there is only one to flush.
lines = len (open ("log").readlines ())
h.flush ()
h.pwrite (b"4" * C, 0)
h.flush ()
new = open ("log").readlines ()[lines:]
assert len ({line.split ()[1] for line in new}) == 1, new
h.shutdown ()
END

new_image x.qcow2 16M
truncate -s 2M x.qcow2
serve_log s --filter="$qcow2ext" "$plugin" path=x.qcow2 log=log
"$PYTHON" client.py "$(uri s)" || { cat s.log; exit 1; }
stop s
cat s.log
clean
qemu-io -f qcow2 -c 'read -P 52 0 64k' -c 'read -P 50 64k 64k' \
        -c 'read -P 49 128k 64k' x.qcow2 | tee out
! grep -q failed out || fail "wrong data"
