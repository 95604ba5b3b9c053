#!/usr/bin/env bash
# Random writing to zlib and zstd compressed images, also over clusters that a
# snapshot shares.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

mixed ()
{
    "$PYTHON" - "$1" <<'EOF'
import random, sys
size = int (sys.argv[1])
rng = random.Random (size)
with open ("mixed.raw", "wb") as f:
    while f.tell () < size:
        n = rng.randint (1, 200000)
        f.write (rng.choice ([rng.randbytes (n), bytes (n),
                              b"%d of %d\n" % (n, size) * (n // 8)])[:n])
    f.truncate (size)
EOF
}

for cluster in 512 4096 65536 2097152; do
    size=$(size_for $cluster)
    mixed "$size"
    for opts in compat=1.1 compression_type=zstd compat=0.10 \
                extended_l2=on,compression_type=zstd snapshot; do
        case $opts:$cluster in
            extended_l2*:512 | extended_l2*:4096) continue ;;
        esac
        { echo "=== $cluster $opts"; } 2>/dev/null
        rm -f x.qcow2
        qemu-img convert -c -f raw -O qcow2 \
                 -o "cluster_size=$cluster,${opts/snapshot/compat=1.1}" \
                 mixed.raw x.qcow2
        snapshots=()
        if [ $opts = snapshot ]; then
            qemu-img snapshot -c one x.qcow2
            snapshots=(one)
        fi
        stress_image internal $cluster
    done
done
