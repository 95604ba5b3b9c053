#!/usr/bin/env bash
# qcow2ext-snapshot=ID or NAME serves an internal snapshot with its own size, as
# qemu-img convert -l reads it; a wrong name lists those that there are.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for opts in compat=1.1 compat=0.10 compat=1.1,cluster_size=512 \
            compat=1.1,extended_l2=on compat=1.1,cluster_size=2M; do
    echo "=== $opts"
    rm -f s.qcow2
    mixed_file s.raw 3000320
    qemu-img convert -c -f raw -O qcow2 -o $opts s.raw s.qcow2
    seed=$RANDOM$RANDOM
    echo "seed $seed"
    for name in first 'with space' 3; do
        "$PYTHON" "$lib/qemu-io-ops.py" --seed $seed --size 3000320 \
                  --count 20 | qemu-io -f qcow2 -d unmap s.qcow2 > /dev/null
        qemu-img snapshot -c "$name" s.qcow2
        seed=$((seed + 1))
    done
    "$PYTHON" "$lib/qemu-io-ops.py" --seed $seed --size 3000320 \
              --count 20 | qemu-io -f qcow2 -d unmap s.qcow2 > /dev/null
    [ $opts = compat=0.10 ] || qemu-img resize -q s.qcow2 4M
    qemu-img convert -f qcow2 -O raw s.qcow2 live.raw
    # A snapshot has the size that the disk had then, which QEMU knows but does
    # not use here.
    for name in first 'with space'; do
        qemu-img convert -f qcow2 -l "snapshot.name=$name" -O raw s.qcow2 s.raw
        truncate -s 3000320 s.raw
        same s.qcow2 s.raw "qcow2ext-snapshot=$name"
    done
    for id in 1 2 3; do
        qemu-img convert -f qcow2 -l snapshot.id=$id -O raw s.qcow2 s.raw
        truncate -s 3000320 s.raw
        same s.qcow2 s.raw qcow2ext-snapshot=$id
    done
    same s.qcow2 live.raw
done

refused 'first' file s.qcow2 qcow2ext-snapshot=none
grep -q 'with space' "$tmp/expect_fail.out" || fail "not all are listed"
refused 'snapshot' file s.qcow2 qcow2ext-snapshot=firs
refused 'snapshot' file s.qcow2 qcow2ext-snapshot=4
mkimage x.qcow2 --data 0=1
refused 'no.*snapshot' file x.qcow2 qcow2ext-snapshot=1

# Larger and smaller than the live disk, and with the tables of its own.
mkimage s.qcow2 --size 1M --data 0-15=7 --snapshot 1:big:3M --data 0-3=8 \
        --snapshot 2:small:100000 --zero 4 --compress 5=9 --snapshot 3:same \
        --data 0=1
readable "0:1M=7 1M:2M=zero" file s.qcow2 qcow2ext-snapshot=big
readable "0:100000=8" file s.qcow2 qcow2ext-snapshot=small
readable "0:256K=8 256K:64K=zero 320K:64K=9 384K:640K=7" file s.qcow2 \
         qcow2ext-snapshot=3
readable "0:64K=1 64K:192K=8" file s.qcow2
for s in big:3145728 small:100000 same:1048576; do
    # shellcheck disable=SC2016
    [ "$(served 'nbdinfo --size "$uri"' file s.qcow2 \
                qcow2ext-snapshot="${s%:*}")" = "${s#*:}" ]
done

# A snapshot is read-only, also when nbdkit is not told so.
timeout 60 nbdkit -U - --filter="$qcow2ext" file s.qcow2 \
        qcow2ext-snapshot=big --run "nbdinfo --is readonly \"\$uri\""

# The snapshot's own view of a backing file.
mixed_file base.raw 3145728
mkimage s.qcow2 --size 1M --backing base.raw --backing-format raw \
        --data 3=7 --snapshot 1:one:2M --data 2=7
cp base.raw ref.raw
truncate -s 2M ref.raw
readable "0:192K=file:ref.raw 192K:64K=7 256K:1792K=file:ref.raw" \
         file s.qcow2 qcow2ext-snapshot=one
