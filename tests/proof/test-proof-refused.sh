#!/usr/bin/env bash
# A pair is not written to when a filter below keeps or changes what is written:
# the first change fails, the message says where such a filter belongs, and
# neither file changes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > changes.py <<'END'
import errno, nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
before = h.pread (4 << 20, 0)
failed = set ()
for what, change in (
        ("write", lambda: h.pwrite (b"x" * 512, 512)),
        ("allocate", lambda: h.pwrite (b"x" * 512, 3 << 20)),
        ("zero", lambda: h.zero (65536, 65536)),
        ("trim", lambda: h.trim (65536, 65536)),
        ("fua", lambda: h.pwrite (b"x", 7, nbd.CMD_FLAG_FUA))):
    try:
        change ()
        sys.exit (what + " succeeded")
    except nbd.Error as e:
        if e.errnum != errno.EPERM:
            raise
try:
    h.flush ()
except nbd.Error:
    pass
# It can be read all the same.
assert h.pread (4 << 20, 0) == before
assert before[:1 << 20] == b"\5" * (1 << 20)
assert not any (before[1 << 20:])
# Waits for the end of the connection, and with it of the lock.
h.shutdown ()
END

for raw in off on; do
    new_image -o "data_file=x.data,data_file_raw=$raw" x.qcow2 4M
    qemu-io -f qcow2 -c 'write -P 5 0 1M' x.qcow2 > /dev/null
    sha256sum x.qcow2 x.data > before
    stat -c '%s %b %Y' x.data > before.stat
    for filter in cow \
                  "cow cow-block-size=4096" \
                  "cache cache=writeback" \
                  "cache cache=writethrough" \
                  "cache cache=unsafe" \
                  "cache cache=writeback cache-on-read=true" \
                  "offset range=$(stat -c %s x.qcow2)"; do
        # The same again, by a later client.
        for server in one two; do
            echo "=== raw $raw: $filter: $server"
            read -ra words <<< "$filter"
            [ $server = two ] ||
                serve_log p --filter="$qcow2ext" --filter="${words[0]}" \
                          file "$PWD/x.qcow2" "${words[@]:1}"
            "$PYTHON" changes.py "$(uri p)" || fail "$filter"
            sha256sum -c --quiet before || fail "$filter: files have changed"
            clean
        done
        stop p
        cat p.log
        [ "$(grep -c 'put it before --filter=qcow2ext.*qcow2ext-trust-below' \
                  p.log)" = 2 ] || fail "$filter: no message, or too many"
        grep 'x.qcow2' p.log | grep -q 'external data file' ||
            fail "$filter: the message is not about the image"
        sha256sum -c --quiet before || fail "$filter: files have changed"
        stat -c '%s %b %Y' x.data | cmp - before.stat
    done
done

# Where the message says that it belongs, it does no harm.
for filter in cow cache; do
    # shellcheck disable=SC2016
    nbdkit -U - --filter=$filter --filter="$qcow2ext" file x.qcow2 --run '
        "$PYTHON" -m nbd -u "$uri" -c "h.pwrite (b\"x\" * 512, 3 << 20)" \
                  -c "assert h.pread (512, 3 << 20) == b\"x\" * 512" \
                  -c "h.flush ()"' || fail "$filter above"
    clean
done
