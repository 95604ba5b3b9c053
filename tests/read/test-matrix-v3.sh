#!/usr/bin/env bash
# Images of version 3 over all cluster sizes, empty, filled and mixed,
# read as qemu-img reads them, and the maps agree.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdcopy --version
requires_nbd_module
cd "$tmp"

for cluster in 512 4096 65536 2097152; do
    matrix_case 1.1 $cluster internal plain
done
