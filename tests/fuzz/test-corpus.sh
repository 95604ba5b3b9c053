#!/usr/bin/env bash
# The inputs that fuzzers kept (corpus/), each given to its target once more.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires xz --version
cd "$tmp"

for replay in "$abs_top_builddir"/tests/fuzz/replay-*; do
    target=${replay##*-}
    case $target in
        *.*) continue ;;
    esac
    mkdir "$target"
    tar -xf "$abs_top_srcdir/tests/fuzz/corpus/$target.tar.xz" -C "$target"
    count=$(find "$target" -type f | wc -l)
    [ "$count" -gt 5 ]
    find "$target" -type f -print0 | sort -z | xargs -0 -n 500 "$replay"
    echo "$target: $count inputs"
done
[ -d session ]
