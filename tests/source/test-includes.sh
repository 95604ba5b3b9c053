#!/usr/bin/env bash
# The engine's rooms include only what comes before them, and nothing goes in a
# circle; and that is noticed if it is not so.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
cd "$tmp"

check_includes ()
{
    "$PYTHON" "$lib/check-includes.py" "$1"
}

check_includes "$abs_top_srcdir/filter"

# refused REGEX FILE LINE: with that line in the file it is not in order.
refused ()
{
    rm -rf copy
    mkdir copy
    (cd "$abs_top_srcdir/filter" &&
         find . -name '*.[ch]' -exec cp --parents {} "$tmp/copy" \;)
    echo "$3" >> "copy/$2"
    expect_fail "$1" check_includes copy
}
refused 'qcow2/disk/header.c: map/layer.h is above disk' \
        qcow2/disk/header.c '#include "map/layer.h"'
refused 'qcow2/base/store.h: the engine includes config.h' \
        qcow2/base/store.h '#  include "config.h"'
refused 'the engine includes nbdkit-filter.h' \
        qcow2/image/image.c '#include <nbdkit-filter.h>'
refused 'a circle: .*qcow2/map/layer.h' \
        qcow2/map/layer.h '#include "map/l2-table.h"'
refused 'qcow2/tail.c: not in a room' qcow2/tail.c ''
