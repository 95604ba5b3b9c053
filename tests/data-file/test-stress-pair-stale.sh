#!/usr/bin/env bash
# Random writing to images with a raw data file whose L2 entries say zero, or
# nothing, where the data file has old bytes.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

stale ()
{
    # What L2 maps must stay the guest's; the rest of the file gets noise.
    "$PYTHON" - "$1" <<'EOF'
import json, os, subprocess, sys
data = subprocess.check_output (["qemu-img", "map", "-f", "qcow2",
                                 "--output=json", "x.qcow2"])
kinds = set ()
with open ("x.data", "r+b") as f:
    for e in json.loads (data):
        if not e["data"]:
            kinds.add (e["zero"])
            f.seek (e["start"])
            f.write (os.urandom (e["length"]))
sys.exit (not kinds)
EOF
}

for cluster in 512 4096 65536 2097152; do
    for l2 in off on; do
        [ $cluster -ge 16384 ] || [ $l2 = off ] || continue
        size=$(size_for $cluster)
        # By QEMU: full, and discarded without passing it on.
        new_image -o "cluster_size=$cluster,data_file=x.data" \
                  -o data_file_raw=on,extended_l2=$l2 x.qcow2 "$size"
        "$PYTHON" - "$stress_seed" "$size" "$cluster" <<'EOF' > commands
import random, sys
seed, size, cluster = map (int, sys.argv[1:])
rng = random.Random (seed)
print ("write -P 0xaa 0", size)
for i in range (12):
    start = rng.randrange (size // cluster) * cluster
    length = min (rng.randint (1, 4) * cluster, size - start)
    print (rng.choice (["discard", "write -z -u", "write -z"]), start, length)
EOF
        qemu-io --image-opts \
                driver=qcow2,file.filename=x.qcow2,pass-discard-request=off,discard=unmap \
                < commands > /dev/null
        qemu-img convert -f qcow2 -O raw x.qcow2 guest.raw
        if cmp -s guest.raw x.data; then
            fail "no old bytes in x.data"
        fi
        subclusters=$([ $l2 = on ] && echo 32 || echo 1)
        stress_image stale $cluster
    done
done

# Zero clusters, zero subclusters and unmapped ones of other programs.
for bits in 9 12 16 21; do
    for extended in "" --extended-l2; do
        [ $bits -ge 14 ] || [ -z "$extended" ] || continue
        cluster=$((1 << bits)) size=$(size_for $((1 << bits)))
        echo "=== mkimage $bits $extended"
        rm -f x.qcow2 x.data
        sub=() subclusters=${extended:+32}
        : "${subclusters:=1}"
        [ -z "$extended" ] ||
            sub=(--subclusters "3=9:0xff00ff0f:0x00ff0000"
                 --subclusters "4=9:0x0:0xf000000f"
                 --subclusters "6=9:0x1")
        # shellcheck disable=SC2086
        mkimage x.qcow2 --size $size --cluster-bits $bits --data-file x.data \
                --raw $extended --data 0=7 --zero 1 --zero-alloc 2 --data 5=8 \
                "${sub[@]}" --data-file-out x.data --reference guest.raw
        truncate -s "$size" x.data
        stale $cluster
        initial=guest.raw
        stress_image stale $cluster
        initial=
    done
done
