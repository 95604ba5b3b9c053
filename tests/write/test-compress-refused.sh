#!/usr/bin/env bash
# Where clusters cannot be compressed, and with bad values, the server does not
# start; whole clusters is what clients are told to send.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdinfo --version
cd "$tmp"

# refused PATTERN NBDKIT-ARGS...
refused ()
{
    local pattern=$1
    shift
    if writing true "$@" 2> refused.log; then
        fail "not refused: $*"
    fi
    grep -q -e "$pattern" refused.log || {
        cat refused.log
        fail "no message \"$pattern\": $*"
    }
}

new_image -o data_file=x.data x.qcow2 1M
refused 'cannot be compressed.*external data file' \
        file x.qcow2 qcow2ext-compress=true
new_image x.qcow2 1M
refused 'perhaps' file x.qcow2 qcow2ext-compress=perhaps
refused 'detect-zeroes=yes: it must be off, on or unmap' \
        file x.qcow2 qcow2ext-detect-zeroes=yes

new_image -o extended_l2=on,cluster_size=256K x.qcow2 1M
writing 'nbdinfo "$uri"' file x.qcow2 | grep 'block_size_preferred: 8192'
writing 'nbdinfo "$uri"' file x.qcow2 qcow2ext-compress=true |
    grep 'block_size_preferred: 262144'
