#!/usr/bin/env bash
# Random damage in headers, tables and compressed data leads to refusals and EIO,
# never to a crash, a hang or much memory.  The seeds are printed.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires zstd --version
requires_nbd_module
cd "$tmp"

try ()
{
    local args=()
    while [ "$1" != "--" ]; do
        args+=("$1")
        shift
    done
    shift
    echo "=== $*"
    mkimage x.qcow2 --tables-first --data-file-out x.data "$@"
    timeout 300 "$PYTHON" "$lib/mutate-image.py" "$qcow2ext" x.qcow2 40 \
            "${args[@]}"
}

mixed_file b.raw 1048576
try -- --cluster-bits 12 --data 0-20=7 --zero 30 --compress 40-60=8
try -- --cluster-bits 9 --version 2 --data 0-20=7 --compress 40-60=8
try -- --cluster-bits 16 --compression zstd --data 0-5=7 --compress 6-15=8
try -- --cluster-bits 14 --extended-l2 --data 0-9=7 --compress 10-15=8 \
    --subclusters 20=7:0xff00:0xff
try -- --cluster-bits 16 --data-file x.data --raw --data 0-15=7
try -- --cluster-bits 12 --backing b.raw --backing-format raw --data 0-20=7
try qcow2ext-snapshot=1 -- --cluster-bits 12 --data 0-20=7 \
    --snapshot 1:one:2M --data 0-5=8 --snapshot 2:two --data 1=2
