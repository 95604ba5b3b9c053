#!/usr/bin/env bash
# The bit "data file is raw" without the bit "external data file" is an error,
# for there is no data file that could be raw.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --raw --data 0=1
refused 'raw' file x.qcow2
refused 'data.file' file x.qcow2
mkimage x.qcow2 --raw --data 0=1 --data-file x.data --data-file-bit off
refused 'raw' file x.qcow2

# Version 2 has no feature bits: what is in their place is an extension.
mkimage x.qcow2 --version 2 --data 0=1 --reference ref.raw \
        --ext 0xffffffff=ffffffffffffffffffffffffffffffff
same x.qcow2 ref.raw
