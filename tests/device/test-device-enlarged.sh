#!/usr/bin/env bash
# A device that is enlarged when it is full, as with lvextend, has space for
# clients that stay connected: reached straight, and below a filter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

cat > client.py <<'END'
import nbd, subprocess, sys
uri, device, disk = sys.argv[1:]
h = nbd.NBD ()
h.connect_uri (uri)
C = 65536
want = bytearray (h.get_size ())

def fill ():
    """Write until there is no space; how many clusters had some?"""
    for i in range (len (want) // C):
        if any (want[i * C:(i + 1) * C]):
            continue
        try:
            h.pwrite (bytes ([i % 255 + 1]) * C, i * C)
            want[i * C:(i + 1) * C] = bytes ([i % 255 + 1]) * C
        except nbd.Error as e:
            assert e.errno == "ENOSPC", e
            return i
    return len (want) // C

first = fill ()
assert 10 < first < 64, first
assert fill () == first
for size in 6 << 20, 8 << 20:
    subprocess.check_call (["truncate", "-s", str (size), disk])
    subprocess.check_call (["losetup", "-c", device])
    n = fill ()
    assert n >= first + 24, (first, n)
    first = n
h.flush ()
assert h.pread (len (want), 0) == want
open ("want.raw", "wb").write (want)
h.shutdown ()
END

truncate -s 4M disk
loop_device disk
for filters in "" cow; do
    truncate -s 4M disk
    losetup -c "$device"
    qemu-img create -q -f qcow2 "$device" 16M
    # The cow filter keeps the changes for itself, but says as well how large it
    # is.
    serve s --filter="$qcow2ext" ${filters:+--filter=$filters} file "$device"
    "$PYTHON" client.py "$(uri s)" "$device" disk
    stop s
    clean "$device"
    [ "$filters" ] || identical want.raw "$device"
done
