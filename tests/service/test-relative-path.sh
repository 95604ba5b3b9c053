#!/usr/bin/env bash
# A relative name of the image works though nbdkit changes its directory when it
# goes into the background; a relative data-file parameter does, too.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkdir images elsewhere
mkimage images/x.qcow2 --data-file x.data --data 0-3=7 \
        --data-file-out images/x.data --reference ref.raw
cp images/x.data elsewhere/y.data
check ()
{
    serve s -r --filter="$qcow2ext" file "$@"
    check_disk "$(uri s)" ref.raw
    check_disk "$(uri s)" ref.raw
    stop s
}
check images/x.qcow2
check ./images/../images/x.qcow2
check file=images/x.qcow2
check images/x.qcow2 qcow2ext-data-file=elsewhere/y.data
cd images
mv ../ref.raw .
check x.qcow2
check x.qcow2 qcow2ext-allow=.
check x.qcow2 qcow2ext-data-file=../elsewhere/y.data
mkimage x.qcow2 --data-file ../elsewhere/y.data --data 0-3=7
check x.qcow2 qcow2ext-allow=../elsewhere
