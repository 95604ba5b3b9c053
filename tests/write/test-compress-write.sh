#!/usr/bin/env bash
# What is written is compressed: QEMU reads what was written to images of all
# cluster sizes, versions, types of compression and widths of refcounts; and
# nothing leaks, when compressed clusters are overwritten, too.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
export PYTHONPATH=$lib

# Text, noise and zeros; and more than half of it can be saved.
"$PYTHON" -c '
import random
r = random.Random (19)
words = [r.randbytes (r.randrange (2, 9)) for _ in range (100)]
with open ("content.raw", "wb") as f:
    for part in range (24):
        if part % 6 == 4:
            f.write (bytes (256 << 10))
        elif part % 6 == 5:
            f.write (r.randbytes (256 << 10))
        else:
            f.write (b" ".join (r.choices (words, k = 60000))[:256 << 10])
'
size=$(stat -c %s content.raw)

check ()
{
    clean
    identical content.raw
}

for opts in cluster_size=512 cluster_size=4K cluster_size=64K cluster_size=2M \
            compression_type=zstd,cluster_size=512 \
            compression_type=zstd,cluster_size=4K \
            compression_type=zstd \
            compression_type=zstd,cluster_size=2M \
            compat=0.10 compat=0.10,cluster_size=1K \
            extended_l2=on compression_type=zstd,extended_l2=on,cluster_size=16K \
            refcount_bits=1 refcount_bits=2 refcount_bits=4 refcount_bits=8 \
            refcount_bits=64,cluster_size=4K lazy_refcounts=on
do
    new_image -o "$opts" x.qcow2 "$size"
    writing 'nbdcopy content.raw "$uri"' file x.qcow2 qcow2ext-compress=true
    check
    # It does get smaller, but where each cluster has to have a place of its own,
    # or is no larger than what it takes to find repetitions, or is larger than
    # what nbdcopy sends at once.
    case $opts in
        refcount_bits=1 | *512 | *2M) ;;
        *) [ $(($(stat -c '%b * 512' x.qcow2))) -lt $((size * 7 / 10)) ] ||
               fail "$opts: $(stat -c '%b * 512' x.qcow2) bytes" ;;
    esac
    # Once more: what was there is let go of.
    before=$(stat -c %s x.qcow2)
    writing 'nbdcopy content.raw "$uri"; nbdcopy content.raw "$uri"' \
            file x.qcow2 qcow2ext-compress=true
    check
    [ "$(stat -c %s x.qcow2)" -le $((before * 3)) ] || fail "$opts: grows"
done

# Requests of parts of clusters, zeroing, trimming; over a backing file, and
# beside a snapshot.
for opts in cluster_size=512 cluster_size=64K compression_type=zstd \
            extended_l2=on,compression_type=zstd compat=0.10 \
            refcount_bits=2,cluster_size=4K
do
    nbdkit_args=(qcow2ext-compress=true)
    cluster=65536
    case $opts in
        *512) cluster=512 ;;
        *4K) cluster=4096 ;;
    esac
    new_image -o "$opts" x.qcow2 "$(size_for $cluster)"
    scribble "$stress_seed" 20 "$(size_for $cluster)"
    stress_image internal $cluster
    case $opts in
        refcount*) ;;
        *) qemu-img snapshot -c one x.qcow2
           snapshots=(one)
           stress_image internal $cluster
           snapshots=() ;;
    esac
done
rm -f b.qcow2
qemu-img convert -f raw -O qcow2 content.raw b.qcow2
new_image -b b.qcow2 -F qcow2 x.qcow2 "$size"
stress_image internal 65536
new_image -o compat=0.10 -b b.qcow2 -F qcow2 x.qcow2 "$size"
stress_image internal 65536
