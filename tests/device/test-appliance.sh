#!/usr/bin/env bash
# Where there are no loop devices, a test that needs them is run in guestfish's
# virtual machine, and its result counts.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"

export QCOW2EXT_TEST_NO_LOOP=1
timeout 600 "$srcdir/device/test-full-device.sh" 2>&1 | tee "$tmp/out"
status=${PIPESTATUS[0]}
[ "$status" = 0 ] || exit "$status"
grep -q "in guestfish's virtual machine" "$tmp/out" ||
    fail "test-full-device.sh was run here"
