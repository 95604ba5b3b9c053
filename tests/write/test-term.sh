#!/usr/bin/env bash
# The server is told to end while clients write: the image is complete, with
# everything that was acknowledged in it.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
load_rounds=2
# shellcheck source=tests/lib/load.sh
source "$lib/load.sh"
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
