#!/usr/bin/env bash
# What was flushed to an image on ext4, XFS and Btrfs is there after a power cut,
# and the image is sound.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires nbdfuse --version
requires_nbd_module
requires losetup --find
requires mkfs.ext4 -V
requires mkfs.xfs -V
requires mkfs.btrfs --version
requires unshare --mount true
requires test -w /dev/fuse

# QCOW2EXT_TEST_LONG=N: N times as much, with fresh seeds.
states=40
[ -z "${QCOW2EXT_TEST_SHORT:-}" ] || states=10
args=(--seed 1 --states "$states")
if [ "${QCOW2EXT_TEST_LONG:-0}" -gt 0 ]; then
    args=(--rounds $((5 * QCOW2EXT_TEST_LONG)) --requests 200)
fi
for fs in ext4 xfs btrfs; do
    "$PYTHON" "$srcdir/power/power-cut.py" "$qcow2ext" \
        "$abs_top_builddir/tests/power/.libs/nbdkit-record-plugin.so" $fs \
        --dir "$tmp" "${args[@]}"
done
