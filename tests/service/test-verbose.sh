#!/usr/bin/env bash
# -D qcow2ext.verbose=1 explains what was read: version, cluster size, virtual
# size and the data file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
cd "$tmp"

mkimage x.qcow2 --size 12345678 --cluster-bits 12 --data-file x.data \
        --data 0=7 --data-file-out x.data
nbdkit -r -v -D qcow2ext.verbose=1 -U - --filter="$qcow2ext" file x.qcow2 \
       --run "nbdcopy \"\$uri\" null:" > out 2> log
grep qcow2ext log
for word in 'version 3|v3' 4096 12345678 x.data; do
    grep -Eq "qcow2ext.*($word)" log || fail "the log does not tell $word"
done

# Without it there is at least not more.
nbdkit -r -v -U - --filter="$qcow2ext" file x.qcow2 \
       --run "nbdcopy \"\$uri\" null:" > out 2> log2
[ "$(grep -c qcow2ext log2)" -lt "$(grep -c qcow2ext log)" ]
