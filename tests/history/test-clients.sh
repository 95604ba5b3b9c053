#!/usr/bin/env bash
# What clients saw of a server that was killed, and of a data server that forgot
# what was not flushed, is explained by some order; lies are not.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
clients=("$PYTHON" "$srcdir/history/clients.py" "$qcow2ext" --dir "$tmp")

# QCOW2EXT_TEST_LONG=N: for N minutes, with fresh seeds.
if [ "${QCOW2EXT_TEST_LONG:-0}" -gt 0 ]; then
    "${clients[@]}" --seconds $((60 * QCOW2EXT_TEST_LONG))
    exit
fi
"$PYTHON" "$srcdir/history/clients.py" --self-test
seconds=12
[ "${QCOW2EXT_TEST_SHORT:-}" ] || seconds=110
"${clients[@]}" --seed 1 --seconds $seconds --lies
# Our server, and the one with the data, stop for moments, as on a busy machine.
"${clients[@]}" --seed 1000 --seconds $((seconds / 2)) --stutter
# A data server that lies about flushes.
! "${clients[@]}" --seed 1 --rounds 4 --kind far-raw --far-cache unsafe \
    > "$tmp/lying" || fail "a lying data server was not noticed"
cat "$tmp/lying"
grep -q 'nothing explains' "$tmp/lying"
