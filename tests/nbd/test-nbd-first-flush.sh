#!/usr/bin/env bash
# Our server is killed with writes that it has not flushed.  What a client reads
# of the next one and then flushes is there, although the data server dies.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
requires nbdkit --filter=cache null --dump-plugin
cd "$tmp"

cat > client.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
what = sys.argv[2]
if what == "prepare":
    h.pwrite (b"1" * 65536, 0)
    h.flush ()
elif what == "write":
    h.pwrite (b"2" * 4096, 0)
elif what == "flush":
    assert h.pread (4096, 0) == b"2" * 4096
    h.flush ()
elif what == "read":
    assert h.pread (4096, 0) == b"2" * 4096, h.pread (4096, 0)[:8]
sys.stdout.write ("done\n")
sys.stdout.flush ()
if what == "write":
    sys.stdin.read ()           # until we are killed
END
# A data server that forgets what was not flushed.
far=(--filter=noextents --filter=cache file x.data cache=writeback)
ours=(--filter="$qcow2ext" file x.qcow2 "qcow2ext-data-file=$(uri far)")
new_image -o data_file=x.data x.qcow2 16M
truncate -s 16M x.data
far_restart "${far[@]}"
serve_log s "${ours[@]}"
"$PYTHON" client.py "$(uri s)" prepare
mkfifo stay
"$PYTHON" client.py "$(uri s)" write < stay > said &
exec 7> stay
for _ in {1..300}; do
    [ -s said ] && break
    sleep 0.1
done
[ -s said ]
kill -KILL "$(cat s.pid)"
while kill -0 "$(cat s.pid)" 2>/dev/null; do sleep 0.05; done
exec 7>&-
serve_log s "${ours[@]}"
"$PYTHON" client.py "$(uri s)" flush
./restart
"$PYTHON" client.py "$(uri s)" read
