#!/usr/bin/env bash
# qcow2ext-check counts errors and leaks as qemu-img check does, on sound images, on
# images with a fault of each kind, and on what a killed server leaves.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires jq --version
cd "$tmp"

qemu-img create -q -f qcow2 plain.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 1M' -c 'write -P 2 5M 300k' \
        -c 'write -z 8M 1M' plain.qcow2 > /dev/null
cp plain.qcow2 snapshots.qcow2
qemu-img snapshot -c one snapshots.qcow2
qemu-io -f qcow2 -c 'write -P 3 128k 200k' snapshots.qcow2 > /dev/null
qemu-img snapshot -c two snapshots.qcow2
head -c 3000000 "$(command -v bash)" > raw
qemu-img convert -c -f raw -O qcow2 raw packed.qcow2
qemu-io -f qcow2 -c 'write -P 3 128k 200k' packed.qcow2 > /dev/null
cp plain.qcow2 bitmaps.qcow2
qemu-img bitmap --add bitmaps.qcow2 b
qemu-io -f qcow2 -c 'write -P 3 128k 200k' bitmaps.qcow2 > /dev/null

wrong=0
compare_counts ()
{
    local f=$1 theirs
    # Its exit status tells what it found.
    qemu-img check --output=json "$f" > qemu.json 2> qemu.log || :
    theirs=$(jq -r '"\(.corruptions // 0) errors and \(.leaks // 0)"' qemu.json)
    nbdkit -r -U - --filter="$qcow2ext" file "$f" qcow2ext-check=true \
           --run true > /dev/null 2> log || { cat log; fail "$f: not served"; }
    ours=$(sed -n 's/.*the check found \(.*\) leaked.*/\1/p' log | head -n 1)
    echo "$f: qemu-img: $theirs, qcow2ext: ${ours:=0 errors and 0}"
    if [ "$ours" != "$theirs" ]; then
        grep -v '^$' qemu.log log | head -n 20
        wrong=1
    fi
}

for image in plain snapshots packed bitmaps; do
    mkdir $image
    "$PYTHON" "$lib/plant-faults.py" $image.qcow2 $image > names
    while read -r name; do
        compare_counts $image/"$name".qcow2
    done < names
done
# Until the server is killed; it never gets to finish.
cat > writes.py <<'END'
import nbd, random, sys
random.seed (int (sys.argv[2]))
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
try:
    while True:
        for i in range (100):
            if i == 50:
                open ("writing", "w").close ()
            at = random.randrange (64 << 20) & ~511
            random.choice ([lambda: h.pwrite (b"x" * 5000, at),
                            lambda: h.trim (200000, at)]) ()
        h.flush ()
except (nbd.Error, ValueError):
    pass
END
leaks=0
for seed in 1 2 3 4 5 6; do
    for cluster in 512 4096; do
        rm -f killed.qcow2 k.sock k.pid writing
        qemu-img create -q -f qcow2 -o cluster_size=$cluster killed.qcow2 65M
        start_nbdkit -P "$tmp/k.pid" -U "$tmp/k.sock" --filter="$qcow2ext" \
                     file killed.qcow2
        "$PYTHON" writes.py "nbd+unix:///?socket=$tmp/k.sock" $seed &
        client=$!
        wait_until "the client writes" [ -e writing ]
        sleep 0.$((seed - 1))
        kill -9 "$(cat k.pid)"
        wait $client || :
        compare_counts killed.qcow2
        case $ours in "0 errors and 0") ;; *) leaks=1 ;; esac
    done
done
[ $leaks = 1 ] || fail "no killed server left anything to count"
[ $wrong = 0 ] || fail "the counts differ"
