#!/usr/bin/env bash
# Filters below that pass on what is written are no hindrance: pairs and images
# grow, and nothing is left of the proof.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

filters=("" delay readahead noparallel "log logfile=log" blocksize
         "offset offset=0" "stats statsfile=stats" retry "fua fuamode=force"
         nozero)
# nbdkit 1.46 has no cacheextents any more.
[ "$(nbdkit_minor)" -ge 46 ] || filters+=(cacheextents)

for opts in data_file=x.data data_file=x.data,data_file_raw=on \
            cluster_size=64k; do
    for filter in "${filters[@]}"; do
        new_image -o "$opts" x.qcow2 2G
        read -ra words <<< "$filter"
        serve s --filter="$qcow2ext" ${filter:+--filter="${words[0]}"} \
              file "$PWD/x.qcow2" "${words[@]:1}"
        nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * 70000, 1 << 30)' \
              -c 'assert h.pread (70000, 1 << 30) == b"x" * 70000' \
              -c 'h.shutdown ()'
        clean
        [ "$(stat -c %s x.qcow2)" -le "$(end_offset)" ] ||
            fail "$filter: something is left at the end"
        qemu-io -f qcow2 -c 'read -P 0x78 1G 70000' x.qcow2 | tee out
        grep -q 'verification failed' out && fail "$filter"
        stop s
    done
done
