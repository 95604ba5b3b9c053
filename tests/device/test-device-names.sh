#!/usr/bin/env bash
# An image on a device names nothing by itself: /dev holds every disk of the
# machine.  qcow2ext-allow= lets it, also if the names there are links to devices,
# as those of LVM are.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_loop_devices
requires_nbd_module
cd "$tmp"

vg=/dev/$(basename "$tmp")
mkdir "$vg"
cleanup_fn rm -r "$vg"
other=$tmp/other
mkdir "$other"

# volume NAME SIZE: a device, with a link to it in $vg; where it is, is in $device.
volume ()
{
    truncate -s "$2" "$1"
    loop_device "$1"
    ln -s "../$(basename "$device")" "$vg/$1"
}

# in_volume NAME ARGS...: an image made by mkimage.
in_volume ()
{
    mkimage image.qcow2 "${@:2}"
    cat image.qcow2 > "$vg/$1"
}

volume top 2M
top=$device
volume base 1M
base=$device
volume middle 2M
mixed_file base.raw 1048576
cat base.raw > "$base"
ln -s "$base" "$other/base"

# bad ARGS...
bad ()
{
    no_disk 'qcow2ext-(allow|backing-file|data-file)' file "$@"
}

for name in "$base" "$(basename "$base")" "$vg/base" "$other/base" base; do
    in_volume top --backing "$name" --backing-format raw
    [ "$name" = base ] || bad "$top"
    bad "$vg/top"
    bad "$vg/top" qcow2ext-allow="$tmp"
done
bad "$vg/top" qcow2ext-allow=none
grep -q "no file that an image names" expect_fail.out || fail "another message"

# Each name, with what allows it.
in_volume top --backing base --backing-format raw
same "$vg/top" base.raw qcow2ext-allow="$vg"
in_volume top --backing "$vg/base" --backing-format raw
same "$top" base.raw qcow2ext-allow="$vg"
same "$vg/top" base.raw qcow2ext-allow="$tmp" qcow2ext-allow="$vg"
in_volume top --backing "$base" --backing-format raw
same "$top" base.raw qcow2ext-allow=/dev
bad "$top" qcow2ext-allow="$vg"
# Elsewhere anyone may make links.
in_volume top --backing "$other/base" --backing-format raw
bad "$top" qcow2ext-allow="$other"
# In /dev, too, only those to devices.
ln -s "$tmp/base.raw" "$vg/file"
in_volume top --backing "$vg/file" --backing-format raw
bad "$top" qcow2ext-allow="$vg"

# A chain, and one that the command line begins.
in_volume middle --backing base --backing-format raw
in_volume top --backing middle --backing-format qcow2
same "$vg/top" base.raw qcow2ext-allow="$vg"
bad "$vg/top" qcow2ext-backing-file="$vg/middle"
same "$vg/top" base.raw qcow2ext-backing-file="$vg/middle" \
     qcow2ext-allow="$vg"
# A file in a directory has one; it may not lead to a device.
mkimage top.qcow2 --backing "$base" --backing-format raw
bad top.qcow2

# The data file, which would be written to.
in_volume top --data-file "$base" --data 0-15=1
bad "$top"
grep -q "names the external data file" expect_fail.out || fail "another message"
same "$top" base.raw qcow2ext-allow=/dev
same "$top" base.raw qcow2ext-data-file="$base"
