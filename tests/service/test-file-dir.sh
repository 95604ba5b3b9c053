#!/usr/bin/env bash
# A directory by descriptor (dirfd=) is refused at the start, as is a directory
# where a file should be.  dir= is in tests/directory/.
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
# Later plugins complain first.
refused 'dir= can be given once, and excludes file=|only appear once' \
        file x.qcow2 dir=.
refused 'dir' file .
refused 'dir' file file=.
# The file plugin has dirfd= since nbdkit 1.34; any other plugin might.
refused 'dirfd= is not supported: name the directory, with dir=' eval \
        config=: get_size='echo 0' dirfd=8 8<.
if nbdkit file --help | grep -q '^dirfd='; then
    refused 'dirfd= is not supported: name the directory, with dir=' \
            file dirfd=8 8<.
fi
