#!/usr/bin/env bash
# Clients that drop at every point of the negotiation or with requests in flight
# leave nothing behind: others are served, and nbdkit ends when it is told to.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --size 4M --data 0-63=7 --reference ref.raw

no_open_file ()
{
    ! find "/proc/$1/fd" -type l -printf '%l\n' | grep x.qcow2
}

few_descriptors ()
{
    [ "$(find "/proc/$1/fd" | wc -l)" -lt 30 ]
}

try ()
{
    # check-disk connects at the same time as well, and alone.
    serve s "${@:2}" -r --filter="$qcow2ext" file x.qcow2
    "$PYTHON" "$lib/drop-clients.py" "$tmp/s.sock" "$1" &
    dropper=$!
    for _ in 1 2 3; do
        check_disk "$(uri s)" ref.raw
    done
    wait $dropper
    check_disk "$(uri s)" ref.raw
    pid=$(< s.pid)
    wait_until "no descriptor has leaked" few_descriptors "$pid"
    # The image is open only while a client is connected.
    wait_until "the image is closed" no_open_file "$pid"
    stop s
}
try negotiation
# With several threads nbdkit 1.32 itself may fail an assertion when a client
# goes that has several requests in flight.
try requests -t 1
