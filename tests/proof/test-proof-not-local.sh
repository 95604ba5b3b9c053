#!/usr/bin/env bash
# A pair whose image is inside something that a filter below unpacks (offset,
# partition, tar, luks, xz), or comes from another server, is served read-only; a
# message says where such a filter belongs.  No file changes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires xz --version
requires tar --version
requires_nbd_module
cd "$tmp"

cat > refused.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.set_strict_mode (0)
h.connect_uri (sys.argv[1])
assert h.is_read_only ()
assert h.pread (1 << 20, 0) == b"\5" * (1 << 20)
for change in (lambda: h.pwrite (b"x" * 512, 0),
               lambda: h.zero (65536, 0), lambda: h.trim (65536, 0)):
    try:
        change ()
        sys.exit ("could be written to")
    except nbd.Error:
        pass
assert h.pread (1 << 20, 0) == b"\5" * (1 << 20)
END

# refuse REGEX NBDKIT-ARGS...

refuse ()
{
    local regex=$1
    shift
    echo "=== raw $raw: $*"
    serve_log p --filter="$qcow2ext" "$@" qcow2ext-data-file="$PWD/x.data"
    "$PYTHON" refused.py "$(uri p)"
    stop p
    cat p.log
    grep -Eq "read-only: .*$regex" p.log || fail "no message"
    sha256sum -c --quiet before || fail "files have changed"
    stat -c '%n %s %b %Y' x.* > now
    cmp before.stat now || fail "files have been touched"
}

where='put filters that .*before --filter=qcow2ext.*qcow2ext-trust-below=true'
printf secret > pass
for raw in off on; do
    new_image -o "data_file=x.data,data_file_raw=$raw" x.qcow2 4M
    qemu-io -f qcow2 -c 'write -P 5 0 1M' x.qcow2 > /dev/null
    size=$(stat -c %s x.qcow2)
    rm -f x.xz x.tar x.disk x.luks
    xz -k -c --block-size=256KiB x.qcow2 > x.xz
    tar cf x.tar x.qcow2
    truncate -s 8M x.disk
    dd if=x.qcow2 of=x.disk bs=1M seek=1 conv=notrunc status=none
    make_luks qemu-img create -q -f luks --object secret,id=s,file=pass \
              -o key-secret=s,iter-time=10 x.luks "$size"
    qemu-img convert -n -f raw --object secret,id=s,file=pass \
             --target-image-opts x.qcow2 \
             driver=luks,file.filename=x.luks,key-secret=s
    # What uses these waits until they are at rest.
    sleep 1
    sha256sum x.* > before
    stat -c '%n %s %b %Y' x.* > before.stat

    refuse "$where" --filter=offset file x.disk offset=1M
    refuse "$where" --filter=offset file x.disk offset=1M "range=$size"
    refuse "$where" --filter=tar file x.tar tar-entry=x.qcow2
    refuse "$where" --filter=luks file x.luks passphrase=+pass
    # This one cannot write at all.
    refuse 'cannot be opened for writing|put filters' --filter=xz file x.xz

    serve other file x.qcow2
    refuse "$where" nbd socket="$PWD/other.sock"
    refuse "$where" --filter=cow nbd socket="$PWD/other.sock"
    stop other
done
