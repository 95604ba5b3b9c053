#!/usr/bin/env bash
# A disk may fail with any number.  One that means something else in the filter
# (try again, others are at it, nothing can be written) is an I/O error like any
# other: no request and no end of a session is tried without end.  And EINTR is
# no failure.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

export FAIL_IO=$tmp/control
cat > client.py <<'END'
import errno, os, signal, sys
import nbd

signal.alarm (60)               # for what is tried without end
uri, number = sys.argv[1], getattr (errno, sys.argv[2])

def connect ():
    h = nbd.NBD ()
    h.connect_uri (uri)
    return h

# The NTH call of the image fails from now on.
def fail (call, nth):
    with open ("new", "w") as f:
        f.write ("%s x.qcow2 %d %d" % (call, nth, number))
    os.rename ("new", os.environ["FAIL_IO"])

def met ():
    os.unlink (os.environ["FAIL_IO"])
    assert os.path.exists (os.environ["FAIL_IO"] + ".met")
    os.unlink (os.environ["FAIL_IO"] + ".met")

h = connect ()
if number == errno.EINTR:
    h.pwrite (b"1" * 65536, 0)
    h.flush ()
    for call in "pwrite", "fdatasync", "pread", "fallocate", "ftruncate":
        fail (call, 1)
        if call == "ftruncate":
            h.trim (1 << 20, 0)
            h.shutdown ()       # cuts off what is not in use
            break
        h.pwrite (b"2" * 65536, 1 << 16)
        h.flush ()
        h.zero (4096, 4096, nbd.CMD_FLAG_NO_HOLE)
        h.pread (1 << 20, 0)
        met ()
else:
    fail ("pread", 0)           # counts have not been read yet
    try:
        h.pwrite (b"1" * 65536, 0)
        sys.exit ("a failed read is not noticed")
    except nbd.Error as e:
        assert e.errnum == errno.EIO, e
    met ()
    h.shutdown ()
    h = connect ()
    h.pwrite (b"1" * 65536, 0)
    fail ("pwrite", 0)
    h.shutdown ()               # waits for the end of the session
met ()
# Where changes were lost, nothing is written any more.
if number == errno.EINTR:
    h = connect ()
    assert not h.is_read_only (), "something was taken for lost"
    h.shutdown ()
END

for error in EAGAIN EBUSY EROFS ESTALE EINTR; do
    echo "=== $error"
    new_image x.qcow2 1M
    serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" client.py "$(uri s)" $error
    stop s
    no_errors
done
clean                           # after EINTR
