#!/usr/bin/env bash
# Random writing to encrypted images with extended L2 entries, with
# and without a data file, with all ciphers and cluster sizes: QEMU's, and what
# QEMU makes of ours.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

one ()
{
    new_encrypted "$cipher" -o "cluster_size=$cluster,extended_l2=on" \
                  x.qcow2 "$size"
    stress_encrypted internal "$cluster"
    new_encrypted "$cipher" -o "cluster_size=$cluster,extended_l2=on" \
                  -o data_file=x.data x.qcow2 "$size"
    stress_encrypted plain "$cluster"
}

stress_all_ciphers one 16384 65536 2097152
