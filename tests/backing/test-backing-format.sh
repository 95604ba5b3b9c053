#!/usr/bin/env bash
# The format of a backing file is never guessed: without a name in the image it
# needs qcow2ext-backing-format=, and unknown names are refused.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage base.qcow2 --data 0-3=7 --reference base.raw
cp base.qcow2 ref-raw.raw
truncate -s 1M ref-raw.raw

mkimage top.qcow2 --backing base.qcow2
no_disk 'qcow2ext-backing-format' file top.qcow2
same top.qcow2 base.raw qcow2ext-backing-format=qcow2
same top.qcow2 ref-raw.raw qcow2ext-backing-format=raw

# An image that was given as raw is raw, whatever it looks like.
mkimage top.qcow2 --backing base.qcow2 --backing-format raw
same top.qcow2 ref-raw.raw
mkimage top.qcow2 --backing base.qcow2 --backing-format qcow2
same top.qcow2 base.raw

# A raw file given as qcow2 is an error, not a fallback.
mkimage top.qcow2 --backing base.raw --backing-format qcow2
no_disk 'base.raw' file top.qcow2

for format in vmdk qcow vdi file host_device nbd luks Raw ''; do
    mkimage top.qcow2 --backing base.raw --backing-format "$format"
    no_disk 'format' file top.qcow2
done

# Without a backing file there is nothing to say about its format.
mkimage plain.qcow2 --backing-format qcow2 --data 0-3=7
same plain.qcow2 base.raw

# In version 2 as well, where the extension exists, too.
mkimage top.qcow2 --version 2 --backing base.qcow2 --backing-format qcow2
same top.qcow2 base.raw
mkimage top.qcow2 --version 2 --backing base.qcow2
no_disk 'qcow2ext-backing-format' file top.qcow2
same top.qcow2 base.raw qcow2ext-backing-format=qcow2
