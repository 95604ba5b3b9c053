#!/usr/bin/env bash
# Random writing to encrypted images with an external data file, raw (which is
# ignored) or not, with all ciphers and cluster sizes: QEMU's, and what QEMU makes
# of ours.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

one ()
{
    raw=off
    [ "$cluster" -ne 4096 ] || raw=on
    new_encrypted "$cipher" -o "cluster_size=$cluster,data_file=x.data" \
                  -o data_file_raw=$raw x.qcow2 "$size"
    stress_encrypted plain "$cluster"
}

stress_all_ciphers one 512 4096 65536 2097152
