#!/usr/bin/env bash
# What was changed is stored in the bitmaps some seconds after the last change,
# also beside a client that never stops reading.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > clients.py <<'END'
import json, nbd, subprocess, sys, threading, time
uri = sys.argv[1]
reading = threading.Event ()
reads = 0

def connect ():
    h = nbd.NBD ()
    h.connect_uri (uri)
    return h

def read_on (h):
    global reads
    while reading.is_set ():
        h.pread (4096, reads % 256 << 12)
        reads += 1

def in_use ():
    info = json.loads (subprocess.check_output (
        ["qemu-img", "info", "-U", "--output=json", "x.qcow2"]))
    [bitmap] = info["format-specific"]["data"]["bitmaps"]
    return "in-use" in bitmap["flags"]

def seconds_until_stored (offset):
    h.pwrite (b"x" * 65536, offset)
    assert in_use (), "the bitmap does not record"
    begin = time.monotonic ()
    while in_use ():
        assert time.monotonic () < begin + 60, "the bitmap is not stored"
        time.sleep (0.1)
    return time.monotonic () - begin

h = connect ()
alone = seconds_until_stored (0)
others = [connect () for i in range (4)]
reading.set ()
threads = [threading.Thread (target = read_on, args = (o,)) for o in others]
for t in threads:
    t.start ()
beside = seconds_until_stored (1 << 20)
assert reads > 1000, reads
reading.clear ()
for t in threads:
    t.join ()
for o in [h] + others:
    o.shutdown ()
print ("stored after %.1f s alone, %.1f s beside readers" % (alone, beside))
END

new_image x.qcow2 8M
qemu-img bitmap --add x.qcow2 b
serve s --filter="$qcow2ext" file x.qcow2
timeout 200 "$PYTHON" clients.py "$(uri s)"
stop s
clean
