#!/usr/bin/env bash
# The readahead filter above asks for what comes next in a thread of its own, and
# goes on with that while its client's connection ends.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires nbdkit --filter=readahead --filter=delay null --version
requires_nbd_module
cd "$tmp"

yes 'a compressible line' | head -c 16M > disk.raw || :
qemu-img convert -c -f raw -O qcow2 disk.raw z.qcow2
# The delay leaves requests of that thread waiting when the client has gone.
serve z -r --filter=readahead --filter="$qcow2ext" --filter=delay \
      file z.qcow2 rdelay=20ms
for _ in 1 2 3 4 5; do
    timeout 60 "$PYTHON" -m nbd -u "$(uri z)" -c - <<'EOF'
with open("disk.raw", "rb") as f:
    for i in range(40):
        assert h.pread(65536, i * 65536) == f.read(65536)
h.shutdown()
EOF
done
timeout 60 nbdcopy "$(uri z)" copy.raw
cmp disk.raw copy.raw
stop z
