#!/usr/bin/env bash
# Entries that are easily misread (guest cluster 0 of a data file, bit 0 of
# version 2, misplaced offsets): each range gives its data, zeros, or EIO.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

c=65536
at () { echo $(($1 * c)); }

# A data file: offset 0 with bit 63 is allocated, 0x1 is zero, 0 is nothing.
mkimage x.qcow2 --data-file x.data --data 0-15=7 --data-file-out x.data \
        --reference ref.raw
for args in "" "--raw"; do
    make () { mkimage x.qcow2 --data-file x.data $args --data 0-15=7 "$@"; }
    make --l2 0=0x8000000000000000
    readable "0:$c=7 0:1M=7" file x.qcow2
    make --l2 0=0x1
    readable "0:$c=zero $c:$c=7" file x.qcow2
    make --l2 0=0x8000000000000001
    readable "0:$c=zero $c:$c=7" file x.qcow2
    make --l2 0=0
    readable "0:$c=zero $c:$c=7" file x.qcow2
    make --l2 3=0
    readable "$(at 3):$c=zero $(at 4):$c=7" file x.qcow2
    make --l2 3=0x1
    readable "$(at 3):$c=zero $(at 2):$c=7" file x.qcow2

    # The "copied" bit says nothing more at any other offset.
    make --l2 3=0x30000
    readable "$(at 3):$c=7|eio $(at 2):$c=7" file x.qcow2

    # Entries that point elsewhere, or nowhere, or are compressed.
    for entry in 0x8000000000000000 0x8000000000040000 0x8000000000030200 \
                 0x8000000000020000 0x80ffffffffff0000 \
                 0x4000000000030000 0xc000000000030000 0x4000000000000001; do
        make --l2 3=$entry
        readable "$(at 3):$c=eio $(at 2):$c=7 $(at 4):$c=7 \
                  $(at 3):1=eio $((3 * c - 1)):2=eio 0:$(at 3)=7 \
                  $(at 4):$(at 12)=7" file x.qcow2
    done
    make --l2 0=0x8000000000010000
    readable "0:$c=eio $c:$c=7" file x.qcow2
    make --l2 0=0x4000000000000000
    readable "0:$c=eio $c:$c=7" file x.qcow2
done

# Internal data: misaligned, past the end of the file, past every limit.
size=$(mkimage i.qcow2 --data 0-15=7 && stat -c %s i.qcow2)
for entry in 0x8000000000010200 0x80ffffffffff0000 \
             $(printf '0x%x' $((size + c))) $(printf '0x%x' "$size"); do
    mkimage i.qcow2 --data 0-15=7 --l2 3="$entry"
    readable "$(at 3):$c=eio $(at 3):512=eio $(at 2):$c=7 \
              $(at 4):$(at 12)=7 $((3 * c - 1)):2=eio" file i.qcow2
done
# A cluster cut short by the end of the file is zero where it is missing.
mkimage i.qcow2 --tables-first --data 0-15=7 --reference ref.raw
# L1, L2 and the header come first: the data of cluster N is in N + 3.
for keep in 1 511 512 1000 65535; do
    mkimage i.qcow2 --tables-first --data 0-15=7 --truncate $(((15 + 3) * c + keep))
    cp ref.raw cut.raw
    truncate -s $((15 * c + keep)) cut.raw
    truncate -s 1M cut.raw
    same i.qcow2 cut.raw
done
mkimage i.qcow2 --tables-first --data 0-15=7 --truncate $(((15 + 3) * c))
readable "$(at 15):$c=eio $(at 14):$c=7 0:$(at 15)=7" file i.qcow2
mkimage i.qcow2 --tables-first --data 0-15=7 --truncate $(((12 + 3) * c + 512))
readable "$(at 12):512=7 $((12 * c + 512)):1024=zero $(at 13):$c=eio \
          $(at 15):$c=eio 0:$(at 12)=7" file i.qcow2

# L1 entries: misaligned, past the end; zero means nothing is allocated.
for entry in 0x8000000000000200 0x80ffffffffff0000 \
             $(printf '0x%x' $((size + c))); do
    # 4 KiB clusters: an L2 table covers 2 MiB.
    mkimage i.qcow2 --cluster-bits 12 --size 4M --data 0-1023=7 --l1 0="$entry"
    readable "0:4096=eio 2093056:4096=eio 2M:2M=7" file i.qcow2
done
mkimage i.qcow2 --cluster-bits 12 --size 4M --data 0-1023=7 --l1 0=0
readable "0:2M=zero 2M:2M=7" file i.qcow2

# In version 2 bit 0 is reserved and does not make zeros.
mkimage v2.qcow2 --version 2 --data 0-7=7
l2=$("$PYTHON" -c 'import struct
f = open ("v2.qcow2", "rb")
f.seek (40)
f.seek (*struct.unpack (">Q", f.read (8)))
print (struct.unpack (">Q", f.read (8))[0] & (1 << 63) - 1)')
mkimage v2.qcow2 --version 2 --data 0-7=7 \
        --poke $((l2 + 3 * 8 + 7))=01
readable "0:$(at 3)=7 $(at 3):$c=7|eio $(at 4):$c=7" file v2.qcow2

# Nor with extended L2 entries, where the bitmap alone says what is zero.
mkimage e.qcow2 --extended-l2 --data 0-7=7
l2=$("$PYTHON" -c 'import struct
f = open ("e.qcow2", "rb")
f.seek (40)
f.seek (*struct.unpack (">Q", f.read (8)))
print (struct.unpack (">Q", f.read (8))[0] & (1 << 63) - 1)')
mkimage e.qcow2 --extended-l2 --data 0-7=7 \
        --poke $((l2 + 3 * 16 + 7))=01
readable "0:$(at 3)=7 $(at 3):$c=7|eio $(at 4):$c=7" file e.qcow2

# Both bits of a subcluster.
mkimage e.qcow2 --extended-l2 --data 0-7=7 --subclusters 3=7:0xff:0xffff0000
readable "0:$(at 3)=7 $(at 3):16384=7 $((3 * c + 16384)):16384=zero \
          $((3 * c + 32768)):32768=zero $(at 4):$c=7" file e.qcow2
mkimage e.qcow2 --extended-l2 --data 0-7=7 --subclusters 3=7:0xff:0x80
readable "0:$(at 3)=7 $((3 * c + 7 * 2048)):2048=eio $(at 4):$c=7" \
         file e.qcow2
# Allocated subclusters without a cluster.
mkimage e.qcow2 --extended-l2 --data 0-7=7 --l2 3=0:1
readable "$(at 3):2048=eio $(at 4):$c=7" file e.qcow2
