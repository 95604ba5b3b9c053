#!/usr/bin/env bash
# Random writing to encrypted images with an internal snapshot,
# with all ciphers and cluster sizes: QEMU's, and what QEMU makes of ours.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

one ()
{
    new_encrypted "$cipher" -o "cluster_size=$cluster" x.qcow2 "$size"
    scribble "$stress_seed" 20 "$size"
    qemu-img snapshot "${secret[@]}" --image-opts -c one "$(opts x.qcow2)"
    snapshots=(one)
    stress_encrypted internal "$cluster"
    served 'check_disk "$uri" snapshot-one.raw --connections 4 --reads 40' \
           file x.qcow2 "${nbdkit_args[@]}" qcow2ext-snapshot=one
}

stress_all_ciphers one 512 4096 65536 2097152
