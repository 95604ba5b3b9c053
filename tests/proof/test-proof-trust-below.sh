#!/usr/bin/env bash
# With qcow2ext-trust-below=true a pair is written to through filters below: the
# metadata through them, the data directly.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# shellcheck disable=SC2016
change='"$PYTHON" -m nbd -u "$uri" -c "h.pwrite (b\"x\" * 70000, 3 << 20)" \
            -c "h.zero (65536 * 2, 65536)" -c "h.trim (65536, 65536 * 4)" \
            -c "h.pwrite (b\"y\" * 512, 0)" -c "h.flush ()" \
            -c "assert h.pread (70000, 3 << 20) == b\"x\" * 70000"'

for raw in off on; do
    new_image -o "data_file=x.data,data_file_raw=$raw" x.qcow2 4M
    qemu-io -f qcow2 -c 'write -P 5 0 1M' x.qcow2 > /dev/null
    mkdir -p saved
    cp x.qcow2 x.data saved/
    writing "$change" file x.qcow2
    qemu-img convert -f qcow2 -O raw x.qcow2 expected.raw
    clean

    for filter in "cache cache=writeback" "cache cache=writethrough" \
                  "offset offset=0" "delay"; do
        echo "=== raw $raw: $filter"
        cp saved/x.* .
        read -ra words <<< "$filter"
        writing "$change" --filter="${words[0]}" file x.qcow2 \
                "${words[@]:1}" qcow2ext-trust-below=true || fail "$filter"
        clean
        identical expected.raw
        [ $raw = off ] || cmp x.data expected.raw
    done

    # The metadata stay in the cow filter.  A raw file is the disk nonetheless.
    echo "=== raw $raw: cow"
    cp saved/x.* .
    sha256sum x.qcow2 > before
    writing "$change" --filter=cow file x.qcow2 qcow2ext-trust-below=true
    sha256sum -c --quiet before
    [ $raw = off ] || cmp x.data expected.raw
    clean

    # Without a local image: over another server.
    echo "=== raw $raw: nbd"
    cp saved/x.* .
    serve other file x.qcow2
    writing "$change" nbd socket="$PWD/other.sock" \
            qcow2ext-data-file="$PWD/x.data" qcow2ext-trust-below=true
    stop other
    clean
    identical expected.raw
    [ $raw = off ] || cmp x.data expected.raw
done

# No room for a table: the error is ENOSPC, and what there is stays sound.
new_image -o data_file=x.data x.qcow2 4G
qemu-io -f qcow2 -c 'write -P 5 0 1M' x.qcow2 > /dev/null
# shellcheck disable=SC2016
writing '"$PYTHON" -m nbd -u "$uri" -c "
import errno
h.pwrite (b\"x\" * 65536, 65536 * 9)
try:
    for i in range (8):
        h.pwrite (b\"z\" * 65536, (2 << 30) + i * (512 << 20) - 65536)
    assert False
except nbd.Error as e:
    assert e.errnum == errno.ENOSPC, e
h.pwrite (b\"y\" * 65536, 65536 * 8)
h.flush ()"' --filter=cache file x.qcow2 qcow2ext-trust-below=true
clean
for at in "9 120" "8 121"; do
    qemu-io -f qcow2 -c "read -P ${at#* } $((65536 * ${at% *})) 64k" x.qcow2 |
        grep -q 'verification failed' && fail "cluster ${at% *}"
done
true
