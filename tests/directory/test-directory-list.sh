#!/usr/bin/env bash
# dir=: the list has each qcow2 file right in the directory, also one that was
# added later, and nothing else; with qcow2ext-exports=all their snapshots and
# bitmaps; at most as many as a list can have.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires nbdinfo --version
requires_nbd_module
cd "$tmp"

mkdir store store/sub
qemu-img create -q -f qcow2 a.qcow2 1M
cp a.qcow2 store/a.qcow2
cp a.qcow2 "store/a b.ü"
cp a.qcow2 store/sub/
ln -s a.qcow2 store/link.qcow2
ln -s /etc store/etc
mkfifo store/fifo.qcow2
echo 'not an image' > store/other.qcow2
: > store/empty.qcow2
cp a.qcow2 "store/new
line"
cp a.qcow2 "$(printf 'store/latin\xe4')"

# nbdinfo --list would open each of them as well.
cat > list.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.set_opt_mode (True)
h.connect_unix (sys.argv[1])
names = []
h.opt_list (lambda name, description: names.append (name) and 0)
h.opt_abort ()
for name in sorted (names):
    print (name)
END

# The names of the list, sorted, in $names.
list ()
{
    names=$("$PYTHON" list.py "$tmp/$1.sock")
}

serve s --filter="$qcow2ext" file dir=store
list s
[ "$names" = "$(printf 'a b.ü\na.qcow2')" ] || fail "the list is: $names"
cp a.qcow2 store/new.qcow2
rm store/a.qcow2
list s
[ "$names" = "$(printf 'a b.ü\nnew.qcow2')" ] || fail "the list is: $names"
stop s

qemu-img create -q -f qcow2 store/parts 1M
qemu-img snapshot -c first store/parts
qemu-img snapshot -c second store/parts
qemu-img bitmap --add store/parts changed
# Damaged, but for the header.
mkimage store/bad --data 0=1
truncate -s 200 store/bad
serve s --filter="$qcow2ext" file dir=store qcow2ext-exports=all
list s
for name in 'a b.ü' bad new.qcow2 parts parts/snapshot:1 parts/snapshot:2 \
            parts/bitmap:changed; do
    grep -qxF "$name" <<< "$names" || fail "$name is not in the list: $names"
done
[ "$(wc -l <<< "$names")" -eq 7 ] || fail "the list is: $names"
nbdinfo "nbd+unix:///parts/snapshot:2?socket=$tmp/s.sock" | grep second
stop s

# A list has at most 10000.
"$PYTHON" - <<'END'
import os
os.mkdir ("full")
for i in range (10001):
    os.link ("a.qcow2", "full/%05d" % i)
END
serve_log s --filter="$qcow2ext" file dir=full
list s
[ "$(wc -l <<< "$names")" -eq 10000 ] || fail "not 10000 in the list"
grep -q 'warning: 1 exports and perhaps more are not listed' s.log
grep -c 'error:' s.log | grep -qx 1
stop s
