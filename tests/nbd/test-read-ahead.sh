#!/usr/bin/env bash
# An image far away: a client that reads in order has what comes next under way,
# within the memory given; one that does not read in order costs nothing more;
# with no memory for it nothing is read ahead.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdkit nbd --version
requires nbdkit --filter=log --filter=delay null --version
requires_nbd_module
cd "$tmp"

random_file ref.raw 33554432
qemu-img convert -f raw -O qcow2 ref.raw x.qcow2
serve far -r --filter=log --filter=delay file x.qcow2 logfile=log rdelay=10ms

# reads ORDER [NBDKIT-ARGS...]: how many bytes were read far away, and how
# many requests were under way at most.
reads ()
{
    local order=$1
    shift
    : > log
    served '"$PYTHON" - "$uri" '"$order" nbd uri="$(uri far)" "$@" <<'END'
import nbd, sys
ref = open ("ref.raw", "rb").read ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
n = 256 << 10
places = [i * n for i in range (len (ref) // n)]
if sys.argv[2] == "jump":
    places = [places[i * 37 % len (places)] for i in range (40)]
for at in places:
    assert h.pread (n, at) == ref[at:at + n]
END
    awk '/Read id=.*offset=/ {
             split ($0, a, "count="); bytes += strtonum (a[2])
             if (++under_way > most) most = under_way
         }
         /\.\.\.Read id=/ { under_way-- }
         END { print bytes, most }' log
}

check ()
{
    local bytes most
    read -r bytes most < <(reads "${@:4}")
    echo "$*: $bytes bytes, $most at a time"
    [ "$bytes" -le "$1" ] || fail "$*: $bytes bytes were read"
    [ "$most" -ge "$2" ] && [ "$most" -le "$3" ] ||
        fail "$*: $most requests at a time"
}

m=1048576
check $((34 * m)) 4 9 order
check $((34 * m)) 2 9 order qcow2ext-read-ahead-size=2M
check $((34 * m)) 1 1 order qcow2ext-read-ahead-size=0
# Opening reads the tables, which lie one after another.
check $((12 * m)) 1 3 jump
