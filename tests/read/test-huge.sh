#!/usr/bin/env bash
# A disk of 64 TiB is opened at once and in little memory, and so is the disk of
# the largest L1 table; reads at both ends work.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

rss ()
{
    awk '/^VmHWM/ { print $2 }' "/proc/$(< "$tmp/$1.pid")/status"
}

# A checker needs memory of its own.
small ()
{
    [ -n "$QCOW2EXT_TEST_UNDER" ] || [ "$1" -lt $((base + 20 * 1024)) ] ||
        fail "too much memory"
}

# quick MS: the server has taken no more processor time than that.  A checker
# takes more.
quick ()
{
    local ms
    ms=$(cpu_ms s)
    echo "$ms ms"
    [ -n "$QCOW2EXT_TEST_UNDER" ] || [ "$ms" -lt "$1" ] ||
        fail "$ms ms of processor time"
}

for kind in internal pair; do
    if [ $kind = pair ]; then
        # File systems do not make files of 64 TiB; a data file may be short.
        mkimage small.qcow2 --data-file x.data --data 0=7 --data-file-out x.data
        mkimage x.qcow2 --size 64T --data-file x.data --data 0=7
    else
        mkimage x.qcow2 --size 64T --data 0=7 --data 0x3fffffff=8
    fi
    cp x.qcow2 y.raw
    [ -e plain.pid ] || serve plain -r file y.raw
    nbdinfo --size "$(uri plain)"
    base=$(rss plain)
    serve s -r --filter="$qcow2ext" file x.qcow2
    [ "$(nbdinfo --size "$(uri s)")" = 70368744177664 ]
    # Milliseconds are expected; this is only to see that it is not minutes.
    quick 1000
    reads="0:64K=7 0x200000000000:64K=zero"
    [ $kind = pair ] || reads+=" 0x3fffffff0000:64K=8"
    # shellcheck disable=SC2086
    "$PYTHON" "$lib/check-reads.py" "$(uri s)" $reads
    used=$(rss s)
    echo "memory: $base KiB without, $used KiB with the filter"
    small "$used"
    stop s

    # The map of nothing is one extent, and does not take long either.
    serve s -r --filter="$qcow2ext" file x.qcow2
    nbdinfo --map --totals "$(uri s)"
    quick 10000
    stop s
done

# A table of 32 MiB, the most there may be, of which the disk needs one entry.
mkimage x.qcow2 --size 1M --data 0=7 --set l1_size=4194304 --truncate 40M
serve s -r --filter="$qcow2ext" file x.qcow2
[ "$(nbdinfo --size "$(uri s)")" = 1048576 ]
used=$(rss s)
echo "memory: $used KiB"
small "$used"
stop s
