#!/usr/bin/env bash
# An export that is smaller than the disk, or becomes so, is refused: it cannot
# grow.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
truncate -s $((16 * 1024 * 1024 - 512)) x.data
serve far file x.data
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
expect_fail . nbdinfo "$(uri s)"
cat s.log
grep -q "$(uri far) has 16776704 bytes and cannot grow" s.log
stop far

# The next client finds one that is large enough, and keeps it in use.
truncate -s 17M x.data
far_restart file x.data
cat > client.py <<'END'
import errno, nbd, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"1" * 65536, 0)
h.flush ()
subprocess.check_call (["truncate", "-s", "1M", "x.data"])
subprocess.check_call (["./restart"])
try:
    h.pread (65536, 0)
except nbd.Error as e:
    assert e.errnum == errno.EIO, e
else:
    sys.exit ("reading did not fail")
subprocess.check_call (["truncate", "-s", "17M", "x.data"])
subprocess.check_call (["./restart"])
assert h.pread (65536, 0) == b"1" * 65536
h.shutdown ()
END
"$PYTHON" client.py "$(uri s)"
stop s
cat s.log
grep -q 'the export has become smaller' s.log
clean
