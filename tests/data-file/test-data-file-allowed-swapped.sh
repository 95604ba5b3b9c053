#!/usr/bin/env bash
# A link takes the place of a directory of qcow2ext-allow= after the data file was
# seen to be in it and before it is opened: what the link leads to is not.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_nbd_module
tmp=$(realpath "$tmp")
cd "$tmp"

mkdir images pool secret
mkimage images/x.qcow2 --data-file "$tmp/pool/d.raw" --data 0-3=1 \
        --data-file-out pool/d.raw
head -c "$(stat -c %s pool/d.raw)" /dev/urandom > secret/d.raw
export REPLACE_DIRECTORY=$tmp/pool
serve_preloaded replace-file s -r --filter="$qcow2ext" file images/x.qcow2 \
                qcow2ext-allow=pool
nbdsh -u "$(uri s)" -c 'h.pread (65536, 0)'
ln -s secret pool.new
expect_fail . nbdsh -u "$(uri s)" -c 'h.pread (65536, 0)'
[ -L pool ] || fail "nothing was replaced"
stop s
