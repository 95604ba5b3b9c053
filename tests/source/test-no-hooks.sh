#!/usr/bin/env bash
# What is built and installed has no hooks for tests: the tests change copies of
# it (see mutants/apply.py).
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"

# hooks DIR: print them.
hooks ()
{
    grep -rnE --include='*.[ch]' --include=Makefile.am \
         '\<(MUTANTS?|QCOW2_MUTANTS|qcow2_mutant|PAUSE_POINTS?|sched_point)\>|QCOW2EXT_TEST|tests/' \
         "$1"
}

if hooks "$abs_top_srcdir/filter"; then
    fail "hooks for tests"
fi

mkdir "$tmp/d"
for line in 'if (MUTANT (no_cow))' 'PAUSE_POINT ("here");' \
            '#ifdef QCOW2_MUTANTS' 'getenv ("QCOW2EXT_TEST_FOO")'; do
    echo "$line" > "$tmp/d/x.c"
    hooks "$tmp/d" || fail "not noticed: $line"
done
