#!/usr/bin/env bash
# An image that we refuse to write to is locked as readers do, although writing
# was asked for: other readers can open it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

try ()
{
    echo "=== $*"
    mkimage x.qcow2 --data 0-5=7 --data-file-out x.data "$@"
    serve s --filter="$qcow2ext" file x.qcow2
    cat > readers.py <<'END'
import nbd, subprocess, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
assert h.is_read_only () == (sys.argv[2] == "refused")
r = subprocess.run (["qemu-img", "info", "x.qcow2"])
assert (r.returncode == 0) == (sys.argv[2] == "refused"), r
r = subprocess.run (["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 64k",
                     "x.qcow2"])
assert (r.returncode == 0) == (sys.argv[2] == "refused"), r
h.pread (4096, 0)
h.shutdown ()
END
    "$PYTHON" readers.py "$(uri s)" "$expected"
    stop s
}

expected=refused
try --incompatible 2
try --incompatible 2 --data-file x.data
try --incompatible 2 --data-file x.data --raw
# To see that there are locks at all.
expected=written
try
try --data-file x.data
