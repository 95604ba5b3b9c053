#!/usr/bin/env bash
# A name that a client asks for forges no line of the log.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --data 0-15=7
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
"$PYTHON" - "$tmp/s.sock" <<'END'
import nbd, sys
for name in ["x\nnbdkit: error: forged", "bitmap:x\nnbdkit: error: forged",
             "snapshot:x\u2028forged", "snapshot:\x9b2J", "\x1b[2J"]:
    h = nbd.NBD ()
    h.set_export_name (name)
    try:
        h.connect_unix (sys.argv[1])
    except nbd.Error:
        continue
    assert False, name
END
stop s
cat s.log
! grep '^nbdkit: error: forged' s.log || fail "a line was forged"
! grep -P '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]' s.log ||
    fail "a control character was shown"
[ "$(grep -c 'x?nbdkit: error: forged' s.log)" -eq 2 ]
