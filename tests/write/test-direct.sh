#!/usr/bin/env bash
# With direct I/O neither the image nor its data file is in the page cache, after
# much was written and read; and both have the size that they should have.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdcopy --version
requires fincore --version
requires_nbd_module
cd "$tmp"
requires_direct_io

# QCOW2EXT_TEST_LONG: the size that was promised.
mib=$((QCOW2EXT_TEST_LONG > 0 ? 1024 : 64))
"$PYTHON" -c "
import random
r = random.Random (13)
with open ('content.raw', 'wb') as f:
    for i in range ($mib):
        f.write (bytes (1 << 20) if i % 7 == 3 else r.randbytes (1 << 20))
    f.write (b'the end' * 100)"
size=$(stat -c %s content.raw)

# cached FILE...: how much of them is in the page cache, in bytes.
cached ()
{
    fincore --bytes --noheadings --output RES "$@" |
        awk '{ sum += $1 } END { print sum }'
}

for opts in cluster_size=64K cluster_size=1K \
            data_file=x.data,data_file_raw=on data_file=x.data
do
    new_image -o "$opts" x.qcow2 "$((size / 512 * 512 + 512))"
    files=(x.qcow2)
    [ ! -e x.data ] || files+=(x.data)
    qemu-img create -q -f raw empty.raw 1
    for f in "${files[@]}"; do  # what QEMU has left there
        dd if="$f" of="$f" iflag=nocache count=0 conv=notrunc,fdatasync \
           status=none
    done
    writing 'nbdcopy --flush content.raw "$uri" &&
             nbdcopy "$uri" - | cmp -n '"$size"' content.raw -' \
            file x.qcow2 qcow2ext-direct=true
    n=$(cached "${files[@]}")
    [ "$n" -lt $((4 << 20)) ] || fail "$opts: $n bytes are in the page cache"
    clean
    cp content.raw whole.raw
    truncate -s %512 whole.raw
    identical whole.raw
    if [ "$opts" = data_file=x.data,data_file_raw=on ]; then
        cmp -n "$size" content.raw x.data
    fi
done

# The same without: or this test would see nothing.
writing 'nbdcopy --flush content.raw "$uri"' file x.qcow2
n=$(cached x.data)
[ "$n" -ge $((16 << 20)) ] || fail "only $n bytes in the page cache without"
