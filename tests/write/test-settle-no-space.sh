#!/usr/bin/env bash
# There is no space for what the last client has left behind: the image stays
# locked, the next client finds what was written, and once there is space the
# image is brought to its final state without a client.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
export FAIL_IO=$tmp/control

# fills: writes without a flush, when there is no space for metadata any more.
cat > fills.py <<'END'
import nbd, os, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"1" * 65536, 0)
h.flush ()
with open ("new", "w") as f:
    f.write ("pwrite x.qcow2 0 28")
h.pwrite (b"2" * 65536, 1 << 20)
os.rename ("new", os.environ["FAIL_IO"])
h.shutdown ()
END

for opts in cluster_size=64K cluster_size=64K,extended_l2=on data_file=x.data; do
    rm -f "$FAIL_IO"*
    new_image -o $opts x.qcow2 4M
    serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" fills.py "$(uri s)"
    [ -e "$FAIL_IO.met" ] || fail "there was space"
    expect_fail lock qemu-io -f qcow2 -c 'write 0 512' x.qcow2
    for i in 1 2; do
        nbdsh -u "$(uri s)" \
              -c 'assert not h.is_read_only ()' \
              -c 'assert h.pread (65536, 0) == b"1" * 65536' \
              -c 'assert h.pread (65536, 1 << 20) == b"2" * 65536' \
              -c 'h.shutdown ()'
    done
    expect_fail lock qemu-io -f qcow2 -c 'write 0 512' x.qcow2
    rm "$FAIL_IO"
    wait_until "it was tried again" qemu-img info -f qcow2 x.qcow2
    clean
    qemu-io -f qcow2 -c 'read -P 50 1M 64k' x.qcow2 | tee out
    ! grep -q failed out || fail "it is lost"

    # A client that comes back when there is space again.
    "$PYTHON" fills.py "$(uri s)"
    rm "$FAIL_IO"
    nbdsh -u "$(uri s)" -c 'h.pwrite (b"3" * 65536, 2 << 20)' \
          -c 'h.flush ()' -c 'h.shutdown ()'
    stop s
    clean
    qemu-io -f qcow2 -c 'read -P 50 1M 64k' -c 'read -P 51 2M 64k' x.qcow2 |
        tee out
    ! grep -q failed out || fail "it is lost"
done
