#!/usr/bin/env bash
# dir=: filters below that change or keep what passes are noticed: when an image
# is opened, or at its first change.  It is refused then, for reading as well.
# Others do no harm.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mkdir store
cat > client.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def fails (f, *args):
    try:
        f (*args)
    except nbd.Error:
        return
    sys.exit ("should have failed")
if sys.argv[2] == "harmless":
    h.pwrite (b"1" * 65536, 65536)
    assert h.pread (65536, 65536) == b"1" * 65536
else:
    assert h.pread (4096, 0) == bytes (4096)
    fails (h.pwrite, b"1" * 65536, 65536)
    fails (h.pread, 4096, 0)
    h.shutdown ()
    h = nbd.NBD ()
    fails (h.connect_uri, sys.argv[1])
END

try ()
{
    local what=$1 status=0
    shift
    rm -f store/*
    qemu-img create -q -f qcow2 store/x 4M
    sum=$(sha256sum store/x)
    serve_log s --filter="$qcow2ext" "$@"
    if [ "$what" = seen ]; then
        expect_fail '' nbdinfo "nbd+unix:///x?socket=$tmp/s.sock"
        grep -q 'x: dir=: what is below qcow2ext is not this file' s.log
    else
        timeout 120 "$PYTHON" client.py "nbd+unix:///x?socket=$tmp/s.sock" \
                "$what" || fail "$*: $(cat s.log)"
    fi
    stop s
    qemu-img check store/x
    [ "$what" = harmless ] || [ "$(sha256sum store/x)" = "$sum" ] ||
        fail "$*: the image has changed"
}

try harmless file dir=store
try harmless --filter=noparallel file dir=store
try harmless --filter=nofilter file dir=store
try seen --filter=offset file dir=store offset=512
try proven --filter=cow file dir=store
try proven --filter=cache file dir=store
try proven --filter=cache file dir=store cache=writethrough
grep -q 'a filter between qcow2ext and the file' s.log

# Filters above that have one overlay or cache for all exports would mix images,
# or a disk and its snapshots.
cp store/x x
for name in cow cache cacheextents; do
    for what in "dir=store" "x qcow2ext-exports=all"; do
        # shellcheck disable=SC2086
        expect_fail "filter=$name before --filter=qcow2ext" \
                    nbdkit -U - --filter=$name --filter="$qcow2ext" file $what \
                    --run true
    done
    nbdkit -U - --filter=$name --filter="$qcow2ext" file x \
           --run 'nbdinfo --size "$uri"'
done
nbdkit -U - --filter="$qcow2ext" --filter=cow file x qcow2ext-exports=all \
       --run 'nbdinfo --size "$uri"'
