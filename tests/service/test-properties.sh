#!/usr/bin/env bash
# What a client is told: read-only, parallel connections, cache and block
# status, block sizes, and a description of the image.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires nbdinfo --version
cd "$tmp"

info ()
{
    # shellcheck disable=SC2016
    served 'nbdinfo --json "$uri"' file "$@" > info.json
    cat info.json
}
# has KEY VALUE: in Python's notation, of the only export.
has ()
{
    "$PYTHON" - "$@" <<'END' || fail "$1 is not $2"
import json, sys
e = json.load (open ("info.json"))["exports"][0]
got = repr (e.get (sys.argv[1]))
print (sys.argv[1], got)
sys.exit (got != sys.argv[2])
END
}
described ()
{
    "$PYTHON" -c 'import json
print (json.load (open ("info.json"))["exports"][0].get ("description"))' |
        tee description
    local word
    for word in "$@"; do
        grep -qF -- "$word" description || fail "no '$word' in the description"
    done
}

mkimage x.qcow2 --data-file disk.raw --raw --data 0-3=7 \
        --data-file-out disk.raw
info x.qcow2
has is_read_only True
has can_multi_conn True
has can_cache True
has export-size 1048576
has contexts "['base:allocation']"
"$PYTHON" - <<'END' || fail "the minimum block size is not 1"
import json, sys
e = json.load (open ("info.json"))["exports"][0]
sys.exit (e.get ("block_size_minimum", 1) != 1)
END
described 'qcow2 v3' '64 KiB clusters' 'raw external data file' disk.raw

mkimage x.qcow2 --data-file disk.raw --data 0-3=7
info x.qcow2
described 'qcow2 v3' '64 KiB clusters' 'external data file' disk.raw
grep -q 'raw external' description && fail "it is not raw"

mkimage x.qcow2 --version 2 --cluster-bits 9 --data 0=1
info x.qcow2
described 'qcow2 v2' '512'
grep -qi 'data file' description && fail "it has no data file"

mkimage x.qcow2 --cluster-bits 21 --extended-l2 --data 0=1
info x.qcow2
described 'qcow2 v3' '2 MiB clusters'
