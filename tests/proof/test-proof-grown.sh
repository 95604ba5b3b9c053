#!/usr/bin/env bash
# Without locks, another program may have written to the image between a client's
# connecting and its first write: nothing of that is cut off, and the image is not
# written to.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for opts in cluster_size=64K data_file=x.data; do
    new_image -o $opts x.qcow2 256M
    serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false
    nbdsh -u "$(uri s)" -c '
import subprocess
assert h.pread (512, 0) == bytes (512)
subprocess.check_call (["qemu-io", "-f", "qcow2", "-c", "write -P 7 4M 1M",
                        "-c", "write -P 8 200M 64K", "x.qcow2"])
for i in range (2):
    try:
        h.pwrite (b"x" * 512, 0)
        raise AssertionError ("it was written to")
    except nbd.Error as e:
        assert e.errno == "EPERM", e
'
    clean
    qemu-io -f qcow2 -c "read -P 7 4M 1M" -c "read -P 8 200M 64K" x.qcow2 |
        tee io.log
    ! grep -i 'verification failed' io.log || fail "$opts: data was cut off"
    grep "another program has written to the image" s.log || fail "no message"
    # The next client sees it, and may write.
    nbdsh -u "$(uri s)" -c 'assert h.pread (512, 4 << 20) == b"\7" * 512' \
          -c 'h.pwrite (b"x" * 512, 0)'
    stop s
    clean
done
