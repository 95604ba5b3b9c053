#!/usr/bin/env bash
# An image that holds its own data, over a filter or a server that it cannot grow
# through: its free clusters are used up, then there is ENOSPC, and it stays sound
# all the time.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > fill.py <<'END'
import errno, nbd, sys
# Writes what is in fill.raw, cluster by cluster, as long as there is room.
uri, cluster, allowed = sys.argv[1], int (sys.argv[2]), int (sys.argv[3])
h = nbd.NBD ()
h.connect_uri (uri)
assert not h.is_read_only ()
size = h.get_size ()
with open ("model.raw", "rb") as f:
    model = bytearray (f.read ())
# What is there already can always be changed.
h.pwrite (b"o" * 100, 50)
model[50:150] = b"o" * 100
room = refused = 0
for at in range (size - cluster, 0, -cluster):
    if any (model[at:at + cluster]):
        continue
    blob = b"%08x" % (at // 8) * (cluster // 8)
    try:
        h.pwrite (blob, at)
        model[at:at + cluster] = blob
        room += 1
    except nbd.Error as e:
        assert e.errnum == errno.ENOSPC, e
        assert h.pread (cluster, at) == model[at:at + cluster]
        refused += 1
        if refused > 5:
            break
print ("room for", room)
assert refused, "no end"
assert room >= allowed, "only %d clusters" % room
# Zeroing gives room again.
h.flush ()
h.zero (cluster, 0)
model[:cluster] = bytes (cluster)
h.flush ()
h.flush ()
h.pwrite (b"n" * cluster, 0)
model[:cluster] = b"n" * cluster
h.pwrite (b"p" * 100, 70)
model[70:170] = b"p" * 100
h.flush ()
assert h.pread (size, 0) == model
with open ("model.raw", "wb") as f:
    f.write (model)
h.shutdown ()
h = nbd.NBD ()
h.connect_uri (uri)
assert h.pread (size, 0) == model
END

cp_image () { cp base.qcow2 x.qcow2; cp base.raw model.raw; }

for cluster in 4096 65536; do
    # Twenty clusters that are free again.
    new_image -o "cluster_size=$cluster" x.qcow2 $((100 * cluster))
    qemu-io -f qcow2 -d unmap -c "write -P 1 0 $((40 * cluster))" \
            -c "discard $((10 * cluster)) $((20 * cluster))" x.qcow2 > /dev/null
    clean
    qemu-img convert -f qcow2 -O raw x.qcow2 base.raw
    mv x.qcow2 base.qcow2

    for filter in cow "cache cache=writeback" "cache cache=writethrough" \
                  "cache cache=unsafe"; do
        echo "=== $cluster: $filter"
        cp_image
        sha256sum x.qcow2 > before
        read -ra words <<< "$filter"
        serve_log s --filter="$qcow2ext" --filter="${words[0]}" \
                  file "$PWD/x.qcow2" "${words[@]:1}" qcow2ext-check=true
        "$PYTHON" fill.py "$(uri s)" $cluster 18 || fail "$filter"
        cp model.raw first.raw
        # There is nothing left; what is there stays.
        "$PYTHON" fill.py "$(uri s)" $cluster 0 || fail "$filter, again"
        stop s
        cat s.log
        # qcow2ext-check=true has looked at it each time.
        ! grep -i 'read-only\|found errors' s.log || fail "not sound"
        grep -q 'no cluster is free, and the image cannot grow' s.log ||
            fail "the log does not say why"
        case $filter in
            # These keep what is written.
            cow | *unsafe)
                sha256sum -c --quiet before ||
                    fail "$filter: the file has changed" ;;
            *)
                clean
                identical model.raw ;;
        esac
    done

    # Over another server; the judge looks at it through that.
    for filter in "" --filter=cow; do
        echo "=== $cluster: nbd $filter"
        cp_image
        sha256sum x.qcow2 > before
        serve other ${filter:+"$filter"} file "$PWD/x.qcow2"
        serve s --filter="$qcow2ext" nbd socket="$PWD/other.sock"
        "$PYTHON" fill.py "$(uri s)" $cluster 18
        clean "$(uri other)"
        identical model.raw "$(uri other)"
        "$PYTHON" fill.py "$(uri s)" $cluster 0
        clean "$(uri other)"
        identical model.raw "$(uri other)"
        stop s
        stop other
        if [ -n "$filter" ]; then
            sha256sum -c --quiet before || fail "cow: the file has changed"
        else
            clean
            identical model.raw
        fi
    done
done
