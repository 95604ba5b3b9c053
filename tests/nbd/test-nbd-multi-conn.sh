#!/usr/bin/env bash
# A server that allows it gets several connections, which share the requests;
# another one gets a single one.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data,data_file_raw=on x.qcow2 16M
truncate -s 16M x.data

cat > many.py <<'END'
import nbd, re, sys
# Connections come up in the background, so this needs some tries.
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
wanted = int (sys.argv[2])
for attempt in range (500):
    ops = [h.aio_pwrite (b"x" * 4096, 65536 * i) for i in range (64)]
    while ops:
        h.poll (-1)
        ops = [o for o in ops if not h.aio_command_completed (o)]
    with open ("log") as f:
        used = set (re.findall (r" connection=(\d+) Write ", f.read ()))
    if len (used) >= wanted:
        break
print (sorted (used))
assert len (used) == wanted, used
h.shutdown ()
END

serve far --filter=log --filter=delay file x.data logfile=log delay-write=5ms
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
"$PYTHON" many.py "$(uri s)" 4
stop s
stop far
clean

# Not --filter=multi-conn with multi-conn-mode=disable: it fails an assertion of
# its own in nbdkit 1.42 to 1.48.
# shellcheck disable=SC2016
serve far --filter=log --filter=delay eval logfile=log delay-write=5ms \
      get_size="stat -c %s '$PWD/x.data'" \
      pread="dd if='$PWD/x.data' iflag=skip_bytes,count_bytes skip=\$4 count=\$3" \
      pwrite="dd of='$PWD/x.data' oflag=seek_bytes seek=\$4 conv=notrunc" \
      flush="sync '$PWD/x.data'"
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
"$PYTHON" many.py "$(uri s)" 1
stop s
stop far
clean
