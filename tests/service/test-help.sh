#!/usr/bin/env bash
# nbdkit --help shows every parameter of the filter: all that it takes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
cd "$tmp"

nbdkit --help --filter="$qcow2ext" file > help
cat help
sed -n 's/^  if (strcmp (key, "\(qcow2ext-[^"]*\)") == 0)$/\1/p' \
    "$abs_top_srcdir/filter/config.c" > parameters
[ "$(wc -l < parameters)" -ge 12 ] || fail "config.c is not as expected"
while IFS= read -r p; do
    grep -q -- "^$p=" help || fail "--help does not show $p"
    # The manual page has it in the synopsis and among the parameters.
    grep -q -- "^        \[$p=" "$abs_top_srcdir"/docs/*.pod ||
        fail "$p is not in the manual page's synopsis"
    grep -q -- "^=item B<$p=" "$abs_top_srcdir"/docs/*.pod ||
        fail "$p is not in the manual page's PARAMETERS"
done < parameters
