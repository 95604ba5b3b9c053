#!/usr/bin/env bash
# The test of what the proof must refuse notices a filter that proves the path to
# the file in one direction only: it writes to a pair over a cache.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"

mutant=$abs_top_builddir/tests/mutants/nbdkit-one-way-filter.so
requires test -f "$mutant"
requires_nbd_module

if QCOW2EXT=$mutant "$srcdir/proof/test-proof-refused.sh" > "$tmp/log" 2>&1; then
    cat "$tmp/log"
    fail "the mutant one_way_proof survived"
fi
cat "$tmp/log"
grep -q '^=== raw .*cache=' "$tmp/log" ||
    fail "it failed before the cache was looked at"
grep -q ' succeeded$' "$tmp/log" || fail "it failed for another reason"
echo "caught: one_way_proof"
