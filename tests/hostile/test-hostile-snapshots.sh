#!/usr/bin/env bash
# Snapshot tables with absurd lengths, offsets and numbers are refused when the
# snapshot is asked for, without a crash or much memory.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

# Offsets of the fields of a snapshot's entry.
l1_offset=0 l1_size=8 id_size=12 name_size=14 extra_size=36

make ()
{
    mkimage x.qcow2 --data 0-15=7 --snapshot 1:one --data 0-7=8 \
            --snapshot 2:two "$@"
}
make
at=$("$PYTHON" -c 'import struct
f = open ("x.qcow2", "rb")
f.seek (64)
print (struct.unpack (">Q", f.read (8))[0])')
readable "0:1M=7" file x.qcow2 qcow2ext-snapshot=one
readable "0:512K=8" file x.qcow2 qcow2ext-snapshot=two

# bad ARGS...: neither as a snapshot nor in the list; the live disk, which
# has no part in it, is served or refused.
bad ()
{
    echo "=== $*"
    make "$@"
    no_disk 'snapshot|L1' file x.qcow2 qcow2ext-snapshot=one
    expect_fail 'snapshot|L1' timeout 20 nbdkit -r -U - --filter="$qcow2ext" \
        file x.qcow2 qcow2ext-exports=all \
        --run "nbdinfo \"nbd+unix:///snapshot:one?socket=\$unixsocket\""
    timeout 20 nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
        --run "nbdinfo --size \"\$uri\"" > live.out 2>&1 ||
        [ $? -lt 124 ] || fail "the live disk: $(cat live.out)"
}

for f in "$((at + id_size))=ffff" \
         "$((at + extra_size))=ffffffff" "$((at + extra_size))=00000401" \
         "$((at + l1_size))=ffffffff" "$((at + l1_size))=00400001" \
         "$((at + l1_size))=00000000" \
         "$((at + l1_offset))=0000000000000200" \
         "$((at + l1_offset))=ffffffffffff0000" \
         "$((at + l1_offset))=7fffffffffff0000"; do
    bad --poke "$f"
done
# This may be taken for a long name.
make --poke "$((at + name_size))=ffff"
timeout 20 nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
    qcow2ext-snapshot=two --run "nbdinfo --size \"\$uri\"" ||
    no_disk 'snapshot' file x.qcow2 qcow2ext-snapshot=two
bad --set snapshots_offset=0x7fffffffffff0000
bad --set snapshots_offset=0x100000000000
bad --set nb_snapshots=65536
# An L1 table past the end is an I/O error at the latest.
make --poke "$((at + l1_offset))=0000100000000000"
timeout 20 nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
    qcow2ext-snapshot=one --run \
    "\"\$PYTHON\" \"\$lib/check-reads.py\" \"\$uri\" 0:64K=eio" ||
    no_disk '.' file x.qcow2 qcow2ext-snapshot=one

# Sizes in the extra data that the L1 table does not reach.
make --poke "$((at + 48))=7fffffffffffffff"
no_disk 'snapshot' file x.qcow2 qcow2ext-snapshot=one

# The most that there may be: 65536, here with one L1 table for all.
"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage

class Many (mkimage.Image):
    def snapshot_table (self, layout):
        one = super ().snapshot_table (layout)
        assert one.endswith (b"00001one") and len (one) == 72, one[-8:]
        return b"".join (one[:64] + b"%05done" % i for i in range (1, 65537))

    def header (self, *args):
        self.overrides = [("nb_snapshots", 65536)]
        return super ().header (*args)

img = Many (1 << 20)
for i in range (16):
    img.data (i, 7)
img.snapshot ("00001", "one")
img.data (0, 8)
img.write ("many.qcow2")
END
readable "0:64K=7" file many.qcow2 qcow2ext-snapshot=65536
readable "0:64K=7" file many.qcow2 qcow2ext-snapshot=00777
readable "0:64K=8" file many.qcow2
