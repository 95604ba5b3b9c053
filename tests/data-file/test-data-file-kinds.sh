#!/usr/bin/env bash
# Only regular files and block devices are data files: a FIFO, a directory, a
# socket, a device, nothing, the image itself are refused, and nothing blocks.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires mkfifo --version
cd "$tmp"

bad ()
{
    local pattern=$1 name=$2
    shift 2
    echo "=== $name"
    mkimage x.qcow2 --data-file "$name" --data 0-3=1
    no_disk "$pattern" file x.qcow2 "$@"
    grep -qF "$name" "$tmp/expect_fail.out" ||
        fail "the message does not name $name"
    # The operator is trusted to name a file, but it must be one.
    mkimage x.qcow2 --data-file other --data 0-3=1
    no_disk "$pattern" file x.qcow2 qcow2ext-data-file="$name"
}

mkfifo fifo
mkdir dir
ln -s fifo link
"$PYTHON" -c 'import socket; socket.socket (socket.AF_UNIX).bind ("sock")'
bad 'regular|FIFO|kind' fifo
bad 'regular|directory|kind' dir
bad 'regular|socket|kind|No such device' sock
mkimage x.qcow2 --data-file link --data 0-3=1
no_disk 'fifo.*(regular|FIFO|kind)' file x.qcow2
bad 'No such file|not exist' missing.raw
bad 'regular|device|kind' /dev/zero qcow2ext-allow=/dev
bad 'regular|device|kind' /dev/null qcow2ext-allow=/
bad 'image itself|chain|already|same file' x.qcow2

# Another name of the same file.
mkimage x.qcow2 --data-file hard --data 0-3=1
ln x.qcow2 hard
no_disk 'image itself|chain|already|same file' file x.qcow2
rm hard
ln -s x.qcow2 hard
no_disk 'image itself|chain|already|same file' file x.qcow2

# No way through the descriptors of the server.
for fd in 0 3 4 5; do
    mkimage x.qcow2 --data-file /proc/self/fd/$fd --data 0-3=1
    no_disk 'qcow2ext-(allow|data-file)|already in use' file x.qcow2
done

# A data file that cannot be read.
if [ "$(id -u)" != 0 ]; then
    : > secret
    chmod 0 secret
    mkimage x.qcow2 --data-file secret --data 0-3=1
    no_disk 'Permission denied' file x.qcow2
fi
