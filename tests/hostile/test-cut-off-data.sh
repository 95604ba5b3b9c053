#!/usr/bin/env bash
# Data clusters that lie past the end of the file are an error to read, and do
# not pass for zeros.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

# The last three of ten data clusters are missing; then a fourth, and part of a
# fifth.
for bits in 12 16; do
    c=$((1 << bits))
    mkimage whole.qcow2 --size $((16 * c)) --cluster-bits $bits \
            --tables-first --data 0-9=7
    "$PYTHON" - $bits <<'END' > first
import struct, sys
d = open ("whole.qcow2", "rb").read ()
l1, = struct.unpack_from (">Q", d, 40)
l2 = struct.unpack_from (">Q", d, l1)[0] & 0x00fffffffffffe00
print (struct.unpack_from (">Q", d, l2)[0] & 0x00fffffffffffe00)
END
    end=$(($(< first) + 7 * c))
    # The reference counts were behind the data: reading needs none.
    cp whole.qcow2 x.qcow2
    truncate -s $end x.qcow2
    readable "0:$((7 * c))=7 $((7 * c)):$c=eio $((8 * c)):512=eio
              $((9 * c)):$c=eio $((9 * c + 512)):1024=eio
              $((6 * c)):$((2 * c))=eio $((10 * c)):$((6 * c))=zero" \
             file x.qcow2
    truncate -s $((end - c - 512)) x.qcow2
    readable "0:$((6 * c - 512))=7 $((6 * c)):$c=eio $((7 * c)):$c=eio
              $((10 * c)):$((6 * c))=zero" file x.qcow2
done
