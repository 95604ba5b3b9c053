#!/usr/bin/env bash
# Chains of three with all mixes of formats, cluster sizes, lengths, data files
# and compression read as qemu-img reads them, and the maps agree.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

scribble ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$1" --size "$2" --count 25 |
        qemu-io -f qcow2 -d unmap "$3" > /dev/null
}

# base format and options : its size : middle options : its size :
# top options : its size
while IFS=: read -r fmt base base_size middle middle_size top top_size; do
    seed=$RANDOM$RANDOM
    echo "=== $fmt $base $base_size <- $middle $middle_size <-" \
         "$top $top_size, seed $seed"
    rm -f base middle.qcow2 top.qcow2 ./*.data
    if [ "$fmt" = raw ]; then
        mixed_file base "$base_size"
    elif [ "$base" = compressed ]; then
        mixed_file base.raw "$base_size"
        qemu-img convert -c -f raw -O qcow2 base.raw base
    else
        qemu-img create -q -f qcow2 -o "$base" base "$base_size"
        scribble $((seed + 1)) "$base_size" base
    fi
    qemu-img create -q -f qcow2 -b base -F "$fmt" -o "$middle" \
             middle.qcow2 "$middle_size"
    scribble $((seed + 2)) "$middle_size" middle.qcow2
    qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 -o "$top" \
             top.qcow2 "$top_size"
    scribble $((seed + 3)) "$top_size" top.qcow2
    qemu-img convert -f qcow2 -O raw top.qcow2 ref.raw
    qemu_map top.qcow2 > map.json
    within=()
    case $fmt:$base:$middle:$top in
        # QEMU does not look for holes in a qcow2 image's data file, and looks
        # for them in a raw file.
        *data_file*) within=(--within) ;;
    esac
    same top.qcow2 ref.raw -- --qemu-map map.json "${within[@]}"
    copied top.qcow2
done <<'END'
qcow2:cluster_size=64k:4194304:cluster_size=64k:4194304:cluster_size=64k:4194304
qcow2:cluster_size=512:1000448:cluster_size=2M:5000192:cluster_size=4k:3000320
qcow2:cluster_size=2M:5000192:cluster_size=512:1000448:cluster_size=64k:4000256
raw::4194304:cluster_size=4k:4194304:cluster_size=64k:4194304
raw::1000448:cluster_size=64k:3000320:cluster_size=4k:5000192
raw::5000192:cluster_size=64k:1000448:cluster_size=4k:3000320
qcow2:compressed:3000320:cluster_size=64k:4194304:cluster_size=4k:4194304
qcow2:compat=0.10:3000320:compat=0.10:4194304:compat=0.10:2097152
qcow2:extended_l2=on:3000320:extended_l2=on,cluster_size=128k:4194304:extended_l2=on:4194304
raw::3000320:extended_l2=on:4194304:cluster_size=512:1000448
qcow2:data_file=b.data:3000320:cluster_size=64k:4194304:cluster_size=4k:4194304
qcow2:data_file=b.data,data_file_raw=on:3000320:data_file=m.data:4194304:data_file=t.data:4194304
qcow2:compressed:4194304:data_file=m.data,cluster_size=4k:2097152:extended_l2=on:4194304
END
