#!/usr/bin/env bash
# qemu-img's bench, map and compare through us.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires jq --version
cd "$tmp"

truncate -s 16M want.raw
qemu-io -f raw -c 'write -q -P 9 1M 3M' -c 'write -q -P 8 9M 64K' want.raw
for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 16M
    qemu-img convert -n -f raw -O qcow2 want.raw x.qcow2
    cp want.raw benched.raw
    # 64 writes of 12K, each 20K after the one before, from 5M on.
    bench='-f raw -d 8 -c 64 -s 12K -S 20K -o 5M -w --pattern=7'
    qemu-img bench $bench benched.raw

    export bench
    writing '
        set -e
        qemu-img compare -f raw -F raw want.raw "$uri"
        qemu-img map --output=json -f raw "$uri" > map.json
        qemu-img bench -f raw -d 32 -c 1000 -s 4K "$uri"
        qemu-img bench $bench --flush-interval=16 "$uri"
        qemu-img compare -f raw -F raw benched.raw "$uri"
        ! qemu-img compare -f raw -F raw want.raw "$uri"
    ' file x.qcow2
    [ "$(jq -c '[.[] | select (.data) | [.start, .length]]' map.json)" = \
      "[[1048576,3145728],[9437184,65536]]" ] || {
        cat map.json
        fail "not where the data is"
    }
    clean
    identical benched.raw
done
same_file benched.raw x.data
