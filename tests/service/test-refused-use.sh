#!/usr/bin/env bash
# A use of the filter that cannot work is refused with a message: the filter
# twice, layers below that choose by the export name, an image that may not be
# read.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
cd "$tmp"

mkimage x.qcow2 --data 0=1
refused 'twice|once|two|more than one|itself' --filter="$qcow2ext" file x.qcow2

# The plugin would end the server when a client comes.
if nbdkit nbd --version > /dev/null 2>&1; then
    refused 'name of the export' nbd socket="$tmp/none" dynamic-export=true
    refused 'name of the export' nbd socket="$tmp/none" dynamic-export=1
fi
if nbdkit --filter=ext2 null --version > /dev/null 2>&1; then
    refused 'name of the export' --filter=ext2 \
            file x.qcow2 ext2file=exportname
fi

# An image that may not be read stops the start of the server.
if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
    # What an unprivileged user reaches.
    open=$(mktemp -d /tmp/q2x-XXXXXXXX)
    cleanup_fn rm -rf "$open"
    chmod 755 "$open"
    cp "$qcow2ext" "$open/f.so"
    cp x.qcow2 "$open"
    as_nobody ()
    {
        setpriv --reuid=65534 --regid=65534 --clear-groups \
                nbdkit -r -U - --filter="$open/f.so" file "$open/x.qcow2" \
                --run true
    }
    chmod 644 "$open/x.qcow2"
    as_nobody
    chmod 600 "$open/x.qcow2"
    expect_fail 'x.qcow2: the image cannot be opened: Permission' as_nobody
fi
