#!/usr/bin/env bash
# Images with extended L2 entries (subclusters), with and without data file,
# read as qemu-img reads them, and the maps agree.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

for cluster in 16384 65536 2097152; do
    for kind in internal data-file raw; do
        matrix_case 1.1 $cluster $kind extended
    done
done
