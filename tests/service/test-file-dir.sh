#!/usr/bin/env bash
# The modes of the file plugin that serve a directory are refused at the start.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
cd "$tmp"

qemu-img create -q -f qcow2 x.qcow2 1M
refused ()
{
    local regex=$1
    shift
    expect_fail "$regex" nbdkit -U - --filter="$qcow2ext" "$@" --run true
}
refused 'dir= and dirfd= are not supported.*file=' file dir=.
refused 'dir= and dirfd= are not supported.*file=' file dir="$tmp"
# Later plugins complain first.
refused 'dir= and dirfd= are not supported.*file=|only appear once' \
        file x.qcow2 dir=.
refused 'dir= and dirfd= are not supported.*file=' --filter=nofilter file dir=.
refused 'dir' file .
refused 'dir' file file=.
# The file plugin has dirfd= since nbdkit 1.34; any other plugin might.
refused 'dir= and dirfd= are not supported.*file=' eval config=: \
        get_size='echo 0' dirfd=8 8<.
if nbdkit file --help | grep -q '^dirfd='; then
    refused 'dir= and dirfd= are not supported.*file=' file dirfd=8 8<.
fi
