#!/usr/bin/env bash
# Random writing to encrypted images that hold their own data,
# with all ciphers and cluster sizes: QEMU's, and what QEMU makes of ours.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

one ()
{
    new_encrypted "$cipher" -o "cluster_size=$cluster" x.qcow2 "$size"
    stress_encrypted internal "$cluster"
}

stress_all_ciphers one 512 4096 65536 2097152
