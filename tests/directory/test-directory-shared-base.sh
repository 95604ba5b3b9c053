#!/usr/bin/env bash
# dir=: what one overlay has decompressed of its base serves the others; a base
# that has changed in between, or has just been made, is read anew.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
# Somewhere where the times of files can be relied on.
fast=$(mktemp -d -p /dev/shm)
cleanup_fn rm -rf "$fast"
cd "$fast"

mkdir store
"$PYTHON" -c '
import random
rng = random.Random (1)
for i in range (12 << 20 >> 12):
    print (end = "".join ("%02x" % b for b in rng.randbytes (2048)))' > text
make_base ()
{
    tr "$1" "$2" < text > changed
    qemu-img convert -q -c -f raw -O qcow2 changed "$3"
}
make_base 0 0 base
for name in a b c; do
    qemu-img create -q -f qcow2 -b "$fast/base" -F qcow2 "store/$name"
done

cat > client.py <<'END'
import nbd, sys
name, path, pid = sys.argv[1:4]
def bytes_read ():
    return int (open ("/proc/%s/io" % pid).readline ().split ()[1])
before = bytes_read ()
h = nbd.NBD ()
h.connect_uri ("nbd+unix:///%s?socket=%s" % (name, path))
disk = b"".join (h.pread (16384, o) for o in range (0, h.get_size (), 16384))
assert disk == open ("changed", "rb").read (), "wrong data"
h.shutdown ()
print (bytes_read () - before)
END
read_disk ()
{
    "$PYTHON" client.py "$1" "$tmp/s.sock" "$(cat "$tmp/s.pid")"
}
size ()
{
    stat -c %s base
}

serve s --filter="$qcow2ext" file dir="$fast/store" qcow2ext-allow="$fast"
# It is too young.
first=$(read_disk a)
second=$(read_disk b)
[ "$first" -gt "$(size)" ] && [ "$second" -gt $(($(size) * 9 / 10)) ] ||
    fail "$first and $second bytes read"
sleep 4
first=$(read_disk a)
second=$(read_disk b)
[ "$first" -gt $(($(size) * 9 / 10)) ] && [ "$second" -lt $(($(size) / 10)) ] ||
    fail "$first and then $second bytes read"
# Another one of the same name.
make_base 0 1 base
sleep 4
first=$(read_disk c)
second=$(read_disk a)
[ "$first" -gt $(($(size) * 9 / 10)) ] && [ "$second" -lt $(($(size) / 10)) ] ||
    fail "$first and then $second bytes read of the new base"
# The same file, written to in place.
make_base 0 2 other
dd if=other of=base conv=notrunc status=none
sleep 4
second=$(read_disk b)
[ "$second" -gt $(($(size) * 9 / 10)) ] ||
    fail "$second bytes read of the base that was written to"
stop s
