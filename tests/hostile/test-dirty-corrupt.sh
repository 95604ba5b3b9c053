#!/usr/bin/env bash
# Images with the dirty or the corrupt bit, or with bad reference counts, are read
# like any other, with one warning.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

try ()
{
    local word=$1
    shift
    echo "=== $*"
    mkimage x.qcow2 --data 0-5=7 --compress 7=8 --reference ref.raw "$@"
    same x.qcow2 ref.raw 2>&1 | tee log
    [ "${PIPESTATUS[0]}" = 0 ] || fail "not served"
    if [ -n "$word" ]; then
        # One for the server, or one for each time that the image is opened.
        [ "$(grep -ci "$word" log)" -ge 1 ] || fail "no warning"
        [ "$(grep -ci "$word" log)" -le 4 ] || fail "too many warnings"
    fi
}

try dirty --incompatible 1 --compatible 1
try dirty --incompatible 1
try corrupt --incompatible 2
try corrupt --incompatible 3
try ""

# Reading takes no notice of reference counts.
table=$("$PYTHON" -c 'import struct
f = open ("x.qcow2", "rb")
f.seek (48)
print (struct.unpack (">Q", f.read (8))[0])')
try "" --poke "$table=0000000000000000"
try "" --poke "$table=00000000000002ff"
try "" --poke "$table=ffffffffffffffff"
