#!/usr/bin/env bash
# Writing, trimming and writing again does not make the image larger for ever.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > loop.py <<'END'
import nbd, os, random, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
rng = random.Random (5)
size = h.get_size ()
sizes = []
for i in range (24):
    # All of it in pieces, let go in others.
    order = list (range (0, size, 65536))
    rng.shuffle (order)
    for at in order:
        h.pwrite (rng.randbytes (65536), at)
    h.flush ()
    sizes.append (os.stat ("x.qcow2").st_size)
    for at in range (0, size, 1 << 20):
        if i % 2:
            h.zero (1 << 20, at)
        else:
            h.trim (1 << 20, at)
    if i % 3 == 0:
        h.flush ()
print (sizes)
# What has been let go is used again after the flush, so twice is enough.
assert max (sizes) <= 2.3 * size, sizes
assert max (sizes[12:]) <= max (sizes[:12]) + (1 << 20), sizes
h.flush ()
h.shutdown ()
END

for cluster in 4096 65536; do
    new_image -o "cluster_size=$cluster" x.qcow2 4M
    serve s --filter="$qcow2ext" file x.qcow2
    sizes=()
    for session in 1 2 3; do
        "$PYTHON" loop.py "$(uri s)" || fail "session $session"
        clean
        # A refcount block may be at the end.
        [ "$(stat -c %s x.qcow2)" -le "$(end_offset)" ] ||
            fail "x.qcow2 has a tail that is not in use"
        sizes+=("$(stat -c %s x.qcow2)")
    done
    [ "${sizes[2]}" -le "${sizes[0]}" ] || fail "grows: ${sizes[*]}"
    stop s
done
