#!/usr/bin/env bash
# dir=: images are served by their names, side by side, for reading and writing,
# with their snapshots and bitmaps; one that is added later as well.  There is
# no default export.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires qemu-io --version
requires_nbd_module
cd "$tmp"

mkdir store
for i in 1 2; do
    qemu-img create -q -f qcow2 -o cluster_size=4K "store/$i.qcow2" 4M
done
qemu-io -c 'write -P 7 0 1M' store/2.qcow2
qemu-img snapshot -c before store/2.qcow2
qemu-img bitmap --add store/2.qcow2 changed

uri_of ()
{
    echo "nbd+unix:///$1?socket=$tmp/s.sock"
}

serve_log s --filter="$qcow2ext" file dir=store qcow2ext-exports=all
qemu-img create -q -f qcow2 store/3.qcow2 4M
expect_fail '' nbdinfo "$(uri_of '')"
grep -q 'there is no default export.*nbdinfo --list' s.log
cat > side-by-side.py <<'END'
import nbd, sys
def connect (name):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%s?socket=%s" % (name, sys.argv[1]))
    return h
disks = [connect ("%d.qcow2" % i) for i in (1, 2, 3)]
before = connect ("2.qcow2/snapshot:before")
for i, h in enumerate (disks):
    assert h.can_multi_conn () and not h.is_read_only ()
    h.pwrite (bytes ([i + 1]) * (2 << 20), 1 << 19)
again = connect ("2.qcow2")
for i, h in enumerate (disks):
    assert h.pread (2 << 20, 1 << 19) == bytes ([i + 1]) * (2 << 20)
assert again.pread (4096, 1 << 19) == b"\2" * 4096
assert before.pread (1 << 20, 0) == b"\7" * (1 << 20)
assert before.is_read_only ()
for h in disks + [before, again]:
    h.shutdown ()
END
"$PYTHON" side-by-side.py "$tmp/s.sock"
# All is there when the last client has gone.
for i in 1 2 3; do
    qemu-img check "store/$i.qcow2"
    qemu-io -c "read -P $i 512K 2M" "store/$i.qcow2" > out
    ! grep failed out || fail "$i.qcow2 has other data"
done
nbdinfo --map "$(uri_of 2.qcow2/bitmap:changed)" > map
grep -Eq '^ +524288 +2097152 +0 +data' map || fail "the bitmap: $(cat map)"
stop s
! grep -v 'default export' s.log | grep 'error:' || fail "messages"

# With -r all is read-only, and nothing of an image changes.
sha256sum store/* > sums
serve s -r --filter="$qcow2ext" file dir=store
nbdsh -u "$(uri_of 1.qcow2)" -c 'assert h.is_read_only ()' \
      -c 'assert h.pread (512, 1 << 20) == b"\1" * 512'
stop s
sha256sum -c --quiet sums
