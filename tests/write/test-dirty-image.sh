#!/usr/bin/env bash
# An image with lazy refcounts that QEMU did not close is repaired before our first
# change, and not by looking at it.  qcow2ext-check=true serves damaged images
# read-only.  Unknown autoclear bits go with the first change.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

incompatible () { od -An -tu1 -j 79 -N 1 x.qcow2 | tr -d ' '; }
autoclear () { od -An -tx1 -j 88 -N 8 x.qcow2 | tr -d ' '; }

# Both as a pair, whose refcounts are those of metadata, and not.
for opts in "" ,data_file=x.data; do
    new_image -o "lazy_refcounts=on$opts" x.qcow2 32M
    # It is killed by its own hand, having flushed, with its dirty bit set.
    qemu-io -f qcow2 -c 'write -P 1 0 9M' -c 'write -P 2 20M 1M' -c flush \
            -c 'sigraise 9' x.qcow2 || true
    [ $(($(incompatible) & 1)) = 1 ] || fail "the image is not dirty"
    # Let it have lost all refcounts that came later than the L1 table's.
    "$PYTHON" -c '
f = open ("x.qcow2", "r+b")
f.seek (2 * 65536 + 2 * 4)
f.write (bytes (65536 - 8))'
    ! qemu-img check -f qcow2 x.qcow2 > /dev/null || fail "nothing to repair"
    sha256sum x.qcow2 > sums
    serve s --filter="$qcow2ext" file x.qcow2
    nbdinfo "$(uri s)" > /dev/null
    nbdsh -u "$(uri s)" -c 'assert h.pread (3, 0) == b"\1\1\1"' \
          -c 'h.flush ()' -c 'h.shutdown ()'
    sha256sum -c --quiet sums
    nbdsh -u "$(uri s)" -c 'h.pwrite (b"\3" * 70000, 12 << 20)' \
          -c 'h.flush ()' -c 'h.pwrite (b"\4" * 100, 100)' -c 'h.shutdown ()'
    [ $(($(incompatible) & 1)) = 0 ] || fail "still dirty"
    clean
    stop s
    qemu-io -r -f qcow2 -c 'read -P 1 0 100' -c 'read -P 4 100 100' \
            -c 'read -P 1 200 9436984' -c 'read -P 0 9M 3M' \
            -c 'read -P 3 12M 70000' -c 'read -P 2 20M 1M' x.qcow2 > out
    ! grep 'verification failed' out || fail "data is lost"
done

# Sound: writable.
new_image x.qcow2 8M
qemu-io -f qcow2 -c 'write -P 1 0 2M' x.qcow2 > /dev/null
cp x.qcow2 good.qcow2
nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-check=true \
       --run 'nbdinfo --can write "$uri"'
# A leak is no error.
"$PYTHON" -c '
f = open ("x.qcow2", "r+b")
f.seek (0, 2)
f.write (bytes (65536))
f.seek (2 * 65536 + 2 * 37)
f.write (b"\0\1")'
qemu-img check -f qcow2 x.qcow2 && fail "no leak"
nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-check=true \
       --run 'nbdinfo --can write "$uri"'
# A cluster that is in use with refcount 0, and a bad pointer, are.
for damage in 'f.seek (2 * 65536 + 2 * 6); f.write (b"\0\0")' \
              'f.seek (3 * 65536); f.write (b"\x80\0\0\0\0\1\2\0")'; do
    cp good.qcow2 x.qcow2
    "$PYTHON" -c "f = open ('x.qcow2', 'r+b'); $damage"
    status=0
    qemu-img check -f qcow2 x.qcow2 || status=$?
    [ $status = 2 ] || fail "QEMU finds no error"
    sha256sum x.qcow2 > sums
    serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-check=true
    ! nbdinfo --can write "$(uri s)" || fail "writable in spite of errors"
    stop s
    cat s.log
    grep -i 'error' s.log || fail "no message"
    sha256sum -c --quiet sums
done

# Autoclear bits.
for opts in cluster_size=64K data_file=x.data \
            "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 8M
    before=$(autoclear)
    "$PYTHON" -c '
f = open ("x.qcow2", "r+b")
f.seek (88)
f.write (b"\x40")'
    marked=$(autoclear)
    [ "$before" != "$marked" ]
    serve s --filter="$qcow2ext" file x.qcow2
    nbdinfo "$(uri s)" > /dev/null
    nbdsh -u "$(uri s)" -c 'h.pread (512, 0)' -c 'h.flush ()' -c 'h.shutdown ()'
    [ "$(autoclear)" = "$marked" ] || fail "cleared by a reader"
    nbdsh -u "$(uri s)" -c 'h.pwrite (b"1" * 512, 0)' -c '
import subprocess
out = subprocess.check_output (["od", "-An", "-tx1", "-j88", "-N1", "x.qcow2"])
assert out.split () == [b"00"], out' -c 'h.shutdown ()'
    [ "$(autoclear)" = "$before" ] || fail "not cleared, or too much is"
    stop s
    clean
done
