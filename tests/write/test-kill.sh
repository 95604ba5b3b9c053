#!/usr/bin/env bash
# The server is killed while clients write, again and again: the image has no
# errors, what was flushed is there, and it can be written to.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
# shellcheck source=tests/lib/load.sh
source "$lib/load.sh"
cd "$tmp"

kills=0
for kind in "${load_kinds[@]}"; do
    load_image "$kind"
    for ((round = 0; round < load_rounds; round++)); do
        start_load "$kind" 6
        kill -9 "$(< s.pid)"
        wait "${clients[@]}" || fail "a client failed"
        rm s.pid
        kills=$((kills + 1))
        no_errors
        if [ "$kind" = unmapped ]; then
            judge_load "$kind" killed
        else
            judge_load "$kind"
        fi
    done
    # Whatever leaked can be had back.
    qemu-img check -q -r leaks -f qcow2 x.qcow2
    clean
done
echo "$kills kills"
