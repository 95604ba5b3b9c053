#!/usr/bin/env bash
# Random histories of twin images, one served by us and one by qemu-nbd, leave
# the same, and each server goes on with what the other one has written.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires qemu-nbd --version
requires qemu-io --version
requires_nbd_module

# QCOW2EXT_TEST_LONG=N: for N minutes, with fresh seeds.
histories=30
[ -z "${QCOW2EXT_TEST_SHORT:-}" ] || histories=12
args=(--seed 1 --histories "$histories")
if [ "${QCOW2EXT_TEST_LONG:-0}" -gt 0 ]; then
    args=(--seconds $((60 * QCOW2EXT_TEST_LONG)) --jobs 2)
fi
"$PYTHON" "$srcdir/history/twins.py" "$qcow2ext" --dir "$tmp" "${args[@]}"
