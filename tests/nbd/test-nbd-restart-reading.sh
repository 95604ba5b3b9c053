#!/usr/bin/env bash
# The server of the data file dies while it has requests to read, and comes
# back: they are sent again, and the clients get what they asked for.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data,data_file_raw=on x.qcow2 16M
"$PYTHON" -c 'open ("x.data", "wb").write (
    b"".join (b"%07d\n" % i * 8192 for i in range (256)))'

# Reads take their time.
far_restart --filter=log --filter=delay file x.data logfile="$tmp/log" \
            logappend=true delay-read=300ms
cat > client.py <<'END'
import nbd, subprocess, sys, time
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def reads ():
    with open ("log") as f:
        return f.read ().count (" Read id=")
for attempt in range (3):
    before = reads ()
    bufs = [nbd.Buffer (65536) for i in range (16)]
    ops = [h.aio_pread (b, i * 65536) for i, b in enumerate (bufs)]
    while reads () < before + 8:
        h.poll (20)
    subprocess.check_call (["./restart"])
    while any (not h.aio_command_completed (o) for o in ops[:1]):
        h.poll (-1)
    for o in ops[1:]:
        while not h.aio_command_completed (o):
            h.poll (-1)
    for i, b in enumerate (bufs):
        assert b.to_bytearray () == b"%07d\n" % i * 8192, i
h.shutdown ()
END
# Each request is to reach the far server.
serve_log s --filter="$qcow2ext" file x.qcow2 \
          qcow2ext-data-file="$(uri far)" qcow2ext-read-ahead-size=0
timeout 100 "$PYTHON" client.py "$(uri s)"
stop s
cat s.log
grep -q 'connection to the NBD server is lost' s.log
clean

# The same for what is read ahead.
cat > client.py <<'END'
import nbd, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
for i in range (256):
    assert h.pread (65536, i * 65536) == b"%07d\n" % i * 8192, i
    if i in (5, 60):
        # Chunks are under way.
        subprocess.check_call (["./restart"])
h.shutdown ()
END
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
timeout 100 "$PYTHON" client.py "$(uri s)"
stop s
cat s.log
clean
