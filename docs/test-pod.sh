#!/usr/bin/env bash
# Check the syntax of the manual pages; warnings count.

cd "${srcdir:-$(dirname "$0")}" || exit 1

failed=0
for pod in *.pod; do
    # podchecker succeeds when there are warnings only, so look at what it says.
    output=$("${PODCHECKER:-podchecker}" -warnings -warnings "$pod" 2>&1) ||
        failed=1
    printf '%s\n' "$output"
    if grep -Eq '^\*\*\* (ERROR|WARNING)' <<<"$output"; then
        failed=1
    fi
done
exit "$failed"
