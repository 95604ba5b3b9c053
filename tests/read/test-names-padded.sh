#!/usr/bin/env bash
# NULs at the end of a name in an image are no part of it (QEMU 0.10 to 0.12 wrote
# such); one with other bytes behind it is refused.  An empty name is none: the
# command line may give one, or none is needed.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

format=0xE2792ACA data=0x44415441
mixed_file b.raw 1048576

image ()
{
    mkimage x.qcow2 --size 1M "$@"
}

# The format of the backing file: "raw" and five NULs.
image --backing b.raw --ext $format=7261770000000000
same x.qcow2 b.raw
image --backing b.raw --ext $format=72617700
same x.qcow2 b.raw
image --backing b.raw --ext $format=72610077
no_disk 'NUL byte' file x.qcow2
image --backing b.raw --ext $format=00726177
no_disk 'NUL byte' file x.qcow2

# The backing file itself.
image --backing b.raw --backing-format raw --set backing_file_size=9
same x.qcow2 b.raw
mkdir "$tmp/b"
image --backing b/b.raw --backing-format raw
printf '\0' | dd of=x.qcow2 bs=1 conv=notrunc status=none \
                 seek=$(($(grep -abo b/b.raw x.qcow2 | cut -d : -f 1) + 1))
no_disk 'NUL byte' file x.qcow2

# The data file.
image --data-file-bit on --ext $data=622e72617700 --data 0-15=1
same x.qcow2 b.raw
image --data-file-bit on --ext $data=6200726177 --data 0-15=1
no_disk 'NUL byte' file x.qcow2

# None at all.
for empty in "" 00 0000000000; do
    image --backing b.raw --ext "$format=$empty"
    no_disk 'qcow2ext-backing-format' file x.qcow2
    same x.qcow2 b.raw qcow2ext-backing-format=raw
    image --ext "$format=$empty"
    accepted file x.qcow2
    image --data-file-bit on --ext "$data=$empty" --data 0-15=1
    no_disk 'does not name it.*qcow2ext-data-file' file x.qcow2
    same x.qcow2 b.raw qcow2ext-data-file=b.raw
done
image --backing b.raw --backing-format raw --set backing_file_size=0
cp x.qcow2 none.qcow2
truncate -s 1M zeros.raw
same none.qcow2 zeros.raw
same none.qcow2 b.raw qcow2ext-backing-file=b.raw
