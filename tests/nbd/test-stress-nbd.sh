#!/usr/bin/env bash
# Random writing over several connections to pairs whose data file is behind
# another NBD server; QEMU sees the same in the two files.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
nbdkit_args=(qcow2ext-data-file="$(uri far)")

# far_pair KIND CLUSTER FAR-ARGS... -- CREATE-ARGS...
far_pair ()
{
    local kind=$1 cluster=$2 args=()
    shift 2
    while [ "$1" != -- ]; do
        args+=("$1")
        shift
    done
    shift
    new_image -o "cluster_size=$cluster,data_file=x.data" "$@" x.qcow2 \
              "$(size_for "$cluster")"
    # A server's export does not grow.
    truncate -s "$(size_for "$cluster")" x.data
    serve far "${args[@]}"
    stress_image "$kind" "$cluster"
    stop far
}

far_pair plain 4096 file x.data -- -o data_file_raw=off
far_pair raw 65536 file x.data -- -o data_file_raw=on
far_pair raw 16384 file x.data -- -o data_file_raw=on -o extended_l2=on
# One that can do little, with a single connection.  (--filter=multi-conn with
# multi-conn-mode=disable fails an assertion of its own in nbdkit 1.42 to 1.48.)
far_pair plain 65536 --filter=nozero --filter=noextents --filter=noparallel \
         file x.data serialize=connections -- -o data_file_raw=off
far_pair raw 65536 --filter=nozero --filter=noextents file x.data \
         -- -o data_file_raw=on
