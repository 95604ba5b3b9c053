#!/usr/bin/env bash
# Garbage in place of compressed data, bombs, and descriptors that lead past the
# end or nowhere give EIO for that cluster alone, in bounded memory.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

"$PYTHON" - "$lib" <<'END'
import os, sys, zlib
sys.path.insert (0, sys.argv[1])
import mkimage

def image (name, blobs, bits=16, compression="zlib", entries=()):
    """Good clusters at the even places, the blobs at the odd ones."""
    img = mkimage.Image (4 << 20 if bits < 20 else 64 << 20, cluster_bits=bits,
                         compression=compression)
    # Not packed: a decoder may well go on with what follows in the sector.
    for i, blob in enumerate (blobs):
        img.compressed (2 * i, 7, pack=False)
        img.compressed (2 * i + 1, blob=blob, pack=False)
    for i, value in enumerate (entries, len (blobs)):
        img.compressed (2 * i, 7, pack=False)
        img.entry (2 * i + 1, value)
    n = 2 * (len (blobs) + len (entries))
    img.compressed (n, 7, pack=False)
    img.write (name + ".qcow2")
    c = img.cluster
    words = []
    for i in range (n + 1):
        words.append ("%d:%d=%s" % (i * c, c, "eio" if i % 2 else "7"))
        if i % 2:
            # A read of good and bad together, and of a little of the bad.
            words.append ("%d:1024=eio" % (i * c - 512 * (bits > 9) - 1))
            words.append ("%d:1=eio" % (i * c + c - 1))
    open (name + ".reads", "w").write (" ".join (words))

rnd = os.urandom
for bits in 9, 16, 21:
    c = 1 << bits
    good = mkimage.content (7, 0, c)
    z = mkimage.deflate (good)
    bad = [rnd (c // 2) if bits < 21 else rnd (3000), b"\xff" * 512,
           bytes (512), z[:len (z) // 2].ljust (len (z), b"\xff"),
           zlib.compress (good),                        # with a header
           mkimage.deflate (good[:c // 2]),             # too little
           mkimage.deflate (good[:-1]), mkimage.deflate (b""),
           b"\x05", b"\x01\xff\xff\x00\x00"]
    # Random bytes may make a valid stream by chance; not of this length.
    bad[0] = b"\x06" + bad[0]
    image ("zlib%d" % bits, bad, bits)
    z = mkimage.zstd (good)
    bad = [rnd (300), bytes (512), z[:len (z) // 2], z[4:],
           mkimage.zstd (good[:-1]), mkimage.zstd (b""),
           # A frame that says that it holds 2^62 bytes, and one that needs a
           # window of almost 4 TiB.
           bytes.fromhex ("28b52ffdc0380000000000004001000000"),
           bytes.fromhex ("28b52ffd00ff0b000000"),
           # A skippable frame, and nothing else.
           bytes.fromhex ("502a4d1804000000") + b"skip"]
    image ("zstd%d" % bits, bad, bits, "zstd")
    shift = 62 - (bits - 8)
    top = (1 << bits - 8) - 1
    image ("where%d" % bits, [], bits, entries=[
        mkimage.COMPRESSED | top << shift | (1 << shift) - 512,
        mkimage.COMPRESSED | top << shift | 1 << 40,
        mkimage.COMPRESSED | 1 << 34,
        # The header and nothing: offset 0.
        mkimage.COMPRESSED, mkimage.COMPRESSED | top << shift,
        mkimage.COPIED | mkimage.COMPRESSED | 1 << 40])
END
for f in *.reads; do
    echo "=== $f"
    readable "$(< "$f")" file "${f%.reads}.qcow2"
    readable "$(< "$f")" file "${f%.reads}.qcow2" qcow2ext-decoded-cache-size=0
done

# Streams that would give a gigabyte are left when the cluster is full; what
# counts is that neither time nor memory goes into the rest.
"$PYTHON" - "$lib" <<'END'
import sys, zlib
sys.path.insert (0, sys.argv[1])
import mkimage
img = mkimage.Image (4 << 20)
c = zlib.compressobj (9, zlib.DEFLATED, -12)
bomb = b"".join (c.compress (bytes (1 << 20)) for _ in range (30))
bomb += c.flush ()
img.compressed (0, 7)
img.compressed (1, blob=bomb)
img.compressed (2, 7)
img.write ("bomb.qcow2")
END
readable "0:64K=7 64K:64K=zero|eio 128K:64K=7" file bomb.qcow2
serve s -r --filter="$qcow2ext" file zstd16.qcow2
reads=$(< zstd16.reads)
for _ in 1 2 3; do
    # shellcheck disable=SC2086
    "$PYTHON" "$lib/check-reads.py" "$(uri s)" $reads
done
# A checker needs memory of its own.
[ -n "$QCOW2EXT_TEST_UNDER" ] ||
    awk '/^VmHWM/ { exit $2 > 80 * 1024 }' "/proc/$(< s.pid)/status" ||
    fail "too much memory"
stop s
