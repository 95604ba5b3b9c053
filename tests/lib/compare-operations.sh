#!/usr/bin/env bash
# qcow2ext: do two builds do the same to files?
# SPDX-License-Identifier: BSD-3-Clause
#
#   compare-operations.sh OLD-BUILD NEW-BUILD [-u] [ROUNDS]
#
# For changes that only move code; with -u, for those that change the order of
# writes between two flushes, and nothing else.  Both are build directories; the program is
# made in each (make -C tests record-operations).

set -e
set -o pipefail

old=$1 new=$2
if [ ! -d "$old/tests" ] || [ ! -d "$new/tests" ]; then
    echo "usage: $0 OLD-BUILD NEW-BUILD [-u] [ROUNDS]" >&2
    exit 2
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for d in "$old" "$new"; do
    make -s -C "$d/tests" record-operations >&2
done
"$old/tests/record-operations" "${@:3}" >"$dir/old"
"$new/tests/record-operations" "${@:3}" >"$dir/new"
if ! diff "$dir/old" "$dir/new" >"$dir/diff"; then
    head -n 40 "$dir/diff"
    echo "$(grep -c '^>' "$dir/diff") of $(wc -l <"$dir/new") workloads differ;"
    echo "for the operations of one: tests/record-operations IMAGE NAME NUMBER"
    exit 1
fi
echo "$(wc -l <"$dir/new") workloads: the same operations"
