#!/usr/bin/env bash
# nbdkit --help shows every parameter of the filter, and --dump-plugin what is
# compiled in (from nbdkit 1.36 on).
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
cd "$tmp"

nbdkit --help --filter="$qcow2ext" file > help
cat help
for p in qcow2ext-data-file qcow2ext-allow qcow2ext-backing-file \
         qcow2ext-backing-format qcow2ext-snapshot qcow2ext-list-snapshots \
         qcow2ext-l2-cache-size qcow2ext-decoded-cache-size; do
    grep -q -- "$p=" help || fail "--help does not show $p"
done

nbdkit --dump-plugin --filter="$qcow2ext" file > dump
cat dump
minor=$(sed -n 's/^version=1\.\([0-9]*\).*/\1/p' dump)
if [ "$minor" -ge 36 ]; then
    grep -q '^qcow2ext' dump || fail "--dump-plugin shows nothing of ours"
    grep -q '^qcow2ext.*zstd' dump || fail "--dump-plugin does not show zstd"
fi
