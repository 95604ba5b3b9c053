#!/usr/bin/env bash
# The server of the data file dies with writes that were not flushed, and comes
# back: the next flush fails, and so do writes, until our server is
# started again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > client.py <<'END'
import errno, nbd, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def fails (f, *args):
    try:
        f (*args)
    except nbd.Error as e:
        assert e.errnum in (errno.EIO, errno.EPERM), e
    else:
        sys.exit ("%s did not fail" % f)
what = sys.argv[2]
h.pwrite (b"1" * 65536, 0)
h.flush ()
# Of no cluster that is new: the metadata has nothing to say.
if what == "write":
    h.pwrite (b"2" * 4096, 0)
elif what == "zero":
    h.zero (4096, 0)
elif what == "allocation":
    h.pwrite (b"2" * 65536, 1 << 20)
subprocess.check_call (["./restart"])
if what == "clean":
    h.flush ()
else:
    assert len (h.pread (65536, 0)) == 65536
    fails (h.flush)
    fails (h.pwrite, b"3" * 4096, 4096)
    fails (h.flush)
    assert h.pread (4096, 4096) == b"1" * 4096
h.shutdown ()
END
cat > later.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"4" * 65536, 0)
h.flush ()
assert h.pread (65536, 0) == b"4" * 65536
h.shutdown ()
END
for what in clean write zero allocation; do
    new_image -o data_file=x.data x.qcow2 16M
    truncate -s 16M x.data
    far_restart file x.data
    serve_log s --filter="$qcow2ext" file x.qcow2 \
              qcow2ext-data-file="$(uri far)"
    "$PYTHON" client.py "$(uri s)" $what
    if [ $what = clean ]; then
        "$PYTHON" later.py "$(uri s)"
    else
        expect_fail '.' "$PYTHON" later.py "$(uri s)"
        stop s
        cp s.log lost.log
        serve_log s --filter="$qcow2ext" file x.qcow2 \
                  qcow2ext-data-file="$(uri far)"
        "$PYTHON" later.py "$(uri s)"
        cat lost.log >> s.log
    fi
    stop s
    stop far
    cat s.log
    if [ $what = clean ]; then
        ! grep -q 'not flushed' s.log || fail "something was taken for lost"
    else
        grep -q 'not flushed' s.log || fail "the log does not say why"
    fi
    no_errors
    qemu-io -f qcow2 -c 'read -P 52 0 64k' x.qcow2 | tee out
    ! grep -q failed out || fail "wrong data"
done
