#!/usr/bin/env bash
# The map of a fully allocated pair of 1 TiB comes in bounded memory.
# The L2 tables are 128 MiB, the cache for them 32 MiB by default.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# A raw pair is preallocated when it is created.
qemu-img create -q -f qcow2 -o data_file=x.data,data_file_raw=on x.qcow2 1T
serve plain -r file x.qcow2
nbdinfo --size "$(uri plain)"
serve s -r --filter="$qcow2ext" file x.qcow2
nbdinfo --map --totals "$(uri s)"
for name in plain s; do
    awk '/^VmHWM/ { print $2 }' "/proc/$(< "$name.pid")/status"
done | tee rss
{ read -r base; read -r used; } < rss
[ "$used" -lt $((base + 64 * 1024)) ] || fail "too much memory"

# Reads all over it do not change that.
nbdsh -u "$(uri s)" -c '
for i in range (0, 1 << 40, 1 << 29):
    assert not any (h.pread (512, i + 12345))
'
used=$(awk '/^VmHWM/ { print $2 }' "/proc/$(< s.pid)/status")
echo "$used"
[ "$used" -lt $((base + 64 * 1024)) ] || fail "too much memory"
