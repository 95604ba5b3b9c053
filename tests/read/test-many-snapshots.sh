#!/usr/bin/env bash
# More snapshots than nbdkit lists exports: those that fit are listed, and all
# can be opened by name.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires_nbd_module
cd "$tmp"

"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
img = mkimage.Image (16 * 512, cluster_bits=9)
for i in range (10005):
    img.snapshot (str (i + 1), "s%d" % (i + 1))
img.write ("x.qcow2")
END

serve s -r --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
timeout 60 "$PYTHON" - <<'END'
import nbd
names = []
h = nbd.NBD ()
h.set_opt_mode (True)
h.connect_unix ("s.sock")
n = h.opt_list (lambda name, description: names.append (name) or 0)
h.opt_abort ()
assert n == len (names), n
assert "" in names and "snapshot:1" in names and "snapshot:9000" in names
assert 9000 < n <= 10000, n
for name in ("snapshot:1", "snapshot:9999", "snapshot:10005", ""):
    h = nbd.NBD ()
    h.set_export_name (name)
    h.connect_unix ("s.sock")
    assert h.get_size () == 16 * 512
    assert h.pread (512, 0) == bytes (512)
    h.shutdown ()
END
stop s
