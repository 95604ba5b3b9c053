#!/usr/bin/env bash
# There is no server where the data file should be, or it goes and does not come
# back: clients are told so within bounded time, and the log says why.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data,data_file_raw=on x.qcow2 16M

# The server starts nevertheless: the other one may come later.
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
expect_fail . nbdinfo "$(uri s)"
cat s.log
grep -q "$(uri far): cannot connect to the NBD server: .*No such file" s.log

serve far file x.data
cat > client.py <<'END'
import errno, nbd, os, signal, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"1" * 65536, 0)
h.flush ()
os.kill (int (sys.argv[2]), signal.SIGKILL)
for f, args in (h.pread, (4096, 0)), (h.pwrite, (b"2" * 4096, 0)):
    try:
        f (*args)
    except nbd.Error as e:
        assert e.errnum == errno.EIO, e
    else:
        sys.exit ("%s did not fail" % f)
# What has been flushed is where it belongs.
h.flush ()
h.shutdown ()
END
timeout 100 "$PYTHON" client.py "$(uri s)" "$(cat far.pid)"
# The last client has gone.
serve far file x.data
qemu-io -f raw -c 'read -P 0x31 0 64k' "$(uri s)" | tee out
! grep -q failed out
stop s
cat s.log
grep -q 'there is no connection to the NBD server' s.log
[ "$(wc -l < s.log)" -lt 40 ] || fail "too many messages"
no_errors
