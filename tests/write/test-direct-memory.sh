#!/usr/bin/env bash
# Large requests past the page cache, many at a time, take bounded memory.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_direct_io
requires_nbd_module
cd "$tmp"

new_image -o data_file=x.data,data_file_raw=on x.qcow2 64M
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-direct=true
"$PYTHON" - "$(uri s)" <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
bufs = [nbd.Buffer.from_bytearray (bytearray (bytes ([i + 1]) * (1 << 20)))
        for i in range (16)]
for n in range (40):
    ops = [h.aio_pwrite (b, (n % 3 * 16 + i) << 20)
           for i, b in enumerate (bufs)]
    while ops:
        h.poll (-1)
        ops = [o for o in ops if not h.aio_command_completed (o)]
END
used=$(awk '/^VmHWM/ { print $2 }' "/proc/$(< s.pid)/status")
echo "$used KiB"
# 16 buffers of nbdkit's and 16 of ours, of 2 MiB at most.
[ "$used" -lt $((160 * 1024)) ] || fail "too much memory"
stop s
clean
