#!/usr/bin/env bash
# An image cut off anywhere gives the right data, zeros for what is missing of
# the last cluster, or an error; never other data and never a crash.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

try ()
{
    local step=$1
    shift
    echo "=== $*"
    mkimage x.qcow2 "$@" --reference ref.raw
    timeout 300 "$PYTHON" "$lib/truncate-image.py" "$qcow2ext" x.qcow2 \
            ref.raw "$step"
}

# Tables at the end, then at the beginning of the file.
try 1536 --size 160K --cluster-bits 12 --data 0-5=7 --zero 6 --data 9-20=8
try 1536 --size 160K --cluster-bits 12 --data 0-5=7 --zero 6 --data 9-20=8 \
    --tables-first
try 512 --size 40K --cluster-bits 9 --version 2 --data 0-5=7 --data 9-60=8 \
    --tables-first
