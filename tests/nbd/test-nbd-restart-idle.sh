#!/usr/bin/env bash
# The server of the data file dies and comes back while all is flushed: clients
# do not notice, neither when they read nor when they write.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
truncate -s 16M x.data
far_restart file x.data

cat > client.py <<'END'
import nbd, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def check (n):
    for i in range (n):
        assert h.pread (65536, i << 20) == bytes ([i + 1]) * 65536, i
for i in range (12):
    if i % 3 == 0:
        h.flush ()
        subprocess.check_call (["./restart"])
    if i % 2 == 0:
        check (i)
    h.pwrite (bytes ([i + 1]) * 65536, i << 20)
h.flush ()
subprocess.check_call (["./restart"])
h.flush ()
check (12)
h.shutdown ()
END
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
"$PYTHON" client.py "$(uri s)" || { cat s.log; exit 1; }
stop s
cat s.log
# A line or two for each time.
grep -c 'connected to the NBD server again' s.log
[ "$(wc -l < s.log)" -le 20 ] || fail "too many messages"
! grep -q 'not flushed' s.log || fail "something was taken for lost"
clean
qemu-io -f qcow2 -c 'read -P 12 11M 64k' x.qcow2 | tee out
! grep -q failed out
