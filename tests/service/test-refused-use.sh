#!/usr/bin/env bash
# Uses of the filter that cannot work are refused with a message: a directory
# of the file plugin, the filter twice.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
cd "$tmp"

mkimage x.qcow2 --data 0=1
mkdir dir
cp x.qcow2 dir/
refused 'dir' file dir=dir
refused 'twice|once|two|more than one|itself' --filter="$qcow2ext" file x.qcow2
