#!/usr/bin/env bash
# Clients are killed with writes in flight.  The server lives, and soon the image
# is complete, with everything that was acknowledged in it.
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
        kill -9 "${clients[@]}"
        wait "${clients[@]}" || :
        wait_until "the image is complete" \
                   qemu-img check -q -f qcow2 x.qcow2
        _running "$(< s.pid)" || fail "the server has gone"
        clean
        judge_load "$kind"
        case $kind in
            bitmaps*) [ -e bitmap.json ] || fail "the bitmap is in use" ;;
        esac
        stop s
        clean
    done
done
