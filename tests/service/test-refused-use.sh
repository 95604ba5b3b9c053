#!/usr/bin/env bash
# A use of the filter that cannot work is refused with a message: the filter
# twice.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
cd "$tmp"

mkimage x.qcow2 --data 0=1
refused 'twice|once|two|more than one|itself' --filter="$qcow2ext" file x.qcow2
