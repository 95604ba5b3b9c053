#!/usr/bin/env bash
# A compressed image cut off anywhere gives the right data or an error; never
# other data and never a crash.
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
    mkimage x.qcow2 "$@" --tables-first --reference ref.raw
    timeout 300 "$PYTHON" "$lib/truncate-image.py" "$qcow2ext" x.qcow2 \
            ref.raw "$step"
}

try 512 --size 160K --cluster-bits 12 --compress 0-20=7 --data 9=8
try 512 --size 160K --cluster-bits 12 --compress 0-20=7 --data 9=8 \
    --compression zstd
