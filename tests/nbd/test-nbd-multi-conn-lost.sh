#!/usr/bin/env bash
# The server of the data file comes back and no longer allows several
# connections, over which changes would be spread, and one flush would not cover
# them: it counts as not there until it allows them again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
requires nbdkit eval --version
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
truncate -s 16M x.data

cat > client.py <<'END'
import nbd, os, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"1" * 65536, 0)
h.flush ()
os.unlink ("several")
subprocess.check_call (["./restart"])
read = h.aio_pread (nbd.Buffer (4096), 0)
def done ():
    """An error is none here: a busy machine may take longer than a request
    waits."""
    try:
        return h.aio_command_completed (read)
    except nbd.Error:
        return False
while True:
    h.poll (50)
    if done ():
        sys.exit ("the server was taken for what it was")
    with open ("s.log") as f:
        if "no longer allows several connections" in f.read ():
            break
open ("several", "w").close ()
subprocess.check_call (["./restart"])
while True:
    try:
        assert h.pread (4096, 0) == b"1" * 4096
        break
    except nbd.Error:
        pass
h.pwrite (b"2" * 65536, 0)
h.flush ()
h.shutdown ()
END

touch several
far_restart eval \
    get_size='echo 16M' can_write='exit 0' can_flush='exit 0' \
    can_multi_conn="[ -e $tmp/several ] || exit 3" \
    pread="dd if=$tmp/x.data skip=\$4 count=\$3 iflag=skip_bytes,count_bytes status=none" \
    pwrite="dd of=$tmp/x.data seek=\$4 conv=notrunc oflag=seek_bytes status=none" \
    flush='exit 0'
serve_log s -v -D qcow2ext.verbose=1 --filter="$qcow2ext" file x.qcow2 \
          qcow2ext-data-file="$(uri far)"
timeout 100 "$PYTHON" client.py "$(uri s)" || { cat s.log; exit 1; }
stop s
stop far
clean
qemu-io -f qcow2 -c 'read -P 50 0 64k' x.qcow2 | tee out
! grep -q failed out || fail "wrong data"
