#!/usr/bin/env bash
# Parameters that make no sense stop nbdkit with a message that names them.
# those that make sense do not.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
cd "$tmp"

mkimage x.qcow2 --data 0=7
for p in qcow2ext-l2-cache-size=1x qcow2ext-l2-cache-size=-1 \
         qcow2ext-l2-cache-size= qcow2ext-decoded-cache-size=pear \
         qcow2ext-read-ahead-size=-1 \
         qcow2ext-exports=maybe qcow2ext-backing-format=vmdk \
         qcow2ext-backing-format= qcow2ext-data-file= qcow2ext-snapshot= \
         qcow2ext-backing-file= qcow2ext-allow= qcow2ext-allow=/nowhere \
         qcow2ext-direct=perhaps qcow2ext-passphrase=+nowhere; do
    refused "${p%%=*}" file x.qcow2 "$p"
done
refused 'qcow2ext-colour' file x.qcow2 qcow2ext-colour=blue
# Twice what can be only once.
refused 'qcow2ext-snapshot' file x.qcow2 qcow2ext-snapshot=1 \
        qcow2ext-snapshot=2
refused 'qcow2ext-data-file' file x.qcow2 qcow2ext-data-file=a \
        qcow2ext-data-file=b

# What excludes each other.
refused 'exports=all and qcow2ext-snapshot= exclude' file x.qcow2 \
        qcow2ext-exports=all qcow2ext-snapshot=1
refused 'exports=all and qcow2ext-bitmap= exclude' file x.qcow2 \
        qcow2ext-exports=all qcow2ext-bitmap=b

accepted file x.qcow2 qcow2ext-l2-cache-size=64K \
         qcow2ext-decoded-cache-size=1M qcow2ext-exports=disk \
         qcow2ext-read-ahead-size=1M \
         qcow2ext-allow="$tmp"
# The smallest caches and none, if that is what it means, still work.
for size in 0 1 512; do
    readable "0:64K=7" file x.qcow2 qcow2ext-l2-cache-size=$size
    readable "0:64K=7" file x.qcow2 qcow2ext-decoded-cache-size=$size
done
