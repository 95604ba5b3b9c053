#!/usr/bin/env bash
# Without locks, another program adds to an image that is being written to here:
# when the last client leaves, that is not cut off, and a message says so.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

new_image x.qcow2 64M
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false
nbdsh -u "$(uri s)" -c '
import os
h.pwrite (b"x" * 65536, 0)
h.flush ()
with open ("x.qcow2", "r+b") as f:
    f.seek (4 << 20)
    f.write (b"added" * 100000)
h.pwrite (b"y" * 65536, 1 << 20)
h.flush ()
'
stop s
[ "$(tail -c 500000 x.qcow2 | tr -d -c d | wc -c)" -eq 300000 ] ||
    fail "what was added has been cut off"
grep "another program has added to the image" s.log || fail "no message"
