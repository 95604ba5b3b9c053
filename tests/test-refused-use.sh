#!/usr/bin/env bash
# Uses of the filter that cannot work are refused with a message: a directory
# of the file plugin, the filter twice.
# shellcheck source=tests/functions.sh
source "${srcdir:-$(dirname "$0")}/functions.sh"
# shellcheck source=tests/reading.sh
source "$srcdir/reading.sh"
cd "$tmp"

mkimage x.qcow2 --data 0=1
mkdir dir
cp x.qcow2 dir/
refused 'dir' file dir=dir
refused 'twice|once|two|more than one|itself' --filter="$qcow2ext" file x.qcow2
