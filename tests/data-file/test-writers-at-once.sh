#!/usr/bin/env bash
# Where a write waits for a server, as on FUSE and NFS, as many of them are under
# way at once as clients ask for.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

export LATE_SEEK_GATHER=$tmp/gather
new_image -o data_file=x.data x.qcow2 4M
serve_preloaded late-seek s --filter="$qcow2ext" file x.qcow2
nbdsh -u "$(uri s)" -c '
import os
gather = os.environ["LATE_SEEK_GATHER"]
h.pwrite (b"a" * (4 << 20), 0)
h.flush ()
open (gather, "w").close ()
todo = [h.aio_pwrite (b"b" * 4096, i << 16) for i in range (12)]
while todo:
    h.poll (-1)
    todo = [c for c in todo if not h.aio_command_completed (c)]
assert not os.path.exists (gather), "there were never eight at once"
'
stop s
clean
