#!/usr/bin/env bash
# The server is told to end while clients write: the image is complete, with
# everything that was acknowledged in it.
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
# shellcheck source=tests/writing.sh
source "$srcdir/writing.sh"
load_rounds=2
# shellcheck source=tests/load.sh
source "$srcdir/load.sh"
cd "$tmp"

for kind in "${load_kinds[@]}"; do
    load_image "$kind"
    for ((round = 0; round < load_rounds; round++)); do
        start_load "$kind" "$load_depth" clean
        stop s
        wait "${clients[@]}" || fail "a client failed"
        clean
        judge_load "$kind"
        case $kind in
            bitmaps*) [ -e bitmap.json ] || fail "the bitmap is in use" ;;
        esac
    done
done
