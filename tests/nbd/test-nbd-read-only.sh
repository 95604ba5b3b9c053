#!/usr/bin/env bash
# A server that offers the data file read-only: the disk is served so, too, and
# the log says why.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires nbdinfo --version
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
qemu-io -f qcow2 -c 'write -P 7 1M 1M' x.qcow2
truncate -s 16M x.data

serve far -r file x.data
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$(uri far)"
nbdinfo "$(uri s)" | tee info
grep -q 'is_read_only: true' info
qemu-io -r -f raw -c 'read -P 7 1M 1M' "$(uri s)" | tee out
! grep -q failed out
stop s
cat s.log
grep -q "$(uri far): the NBD server offers this export read-only" s.log
grep -q 'served read-only: its external data file' s.log
stop far

# With -r nobody expected anything else.
serve far file x.data
serve_log s -r --filter="$qcow2ext" file x.qcow2 \
          qcow2ext-data-file="$(uri far)"
nbdinfo "$(uri s)" | grep 'is_read_only: true'
stop s
[ ! -s s.log ] || fail "needless messages: $(cat s.log)"
