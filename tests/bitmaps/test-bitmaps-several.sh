#!/usr/bin/env bash
# Several bitmaps at once: what is dirty in any of them, whatever their
# granularities, wherever one asks from.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# 512-byte clusters hold few bits, so that each bitmap has many chunks.
new_image -o cluster_size=512 x.qcow2 8M
rng=1
for b in a:512 b:4096 c:65536; do
    qemu-img bitmap --add -g "${b#*:}" x.qcow2 "${b%:*}"
    args=()
    for ((i = 0; i < 40; i++)); do
        rng=$(((rng * 1103515245 + 12345) % 2147483648))
        args+=(-c "write -q $((rng / 65536 % 16000 * 512)) \
$((rng % 7 * 512 + 512))")
    done
    qemu-io -f qcow2 "${args[@]}" x.qcow2
    qemu-img bitmap --disable x.qcow2 "${b%:*}"
done
qemu-img bitmap --add x.qcow2 none

cat > map.py <<'END'
import nbd, random, sys
h = nbd.NBD ()
h.add_meta_context ("base:allocation")
h.connect_unix (sys.argv[1])
def dirty (first, end):
    bits = []
    def extent (context, at, entries, err):
        for n, flags in zip (entries[::2], entries[1::2]):
            assert flags in (0, 3) and n % 512 == 0
            bits.extend ([flags == 0] * (n // 512))
        return 0
    while first + len (bits) < end:
        at = first + len (bits)
        h.block_status ((end - at) * 512, at * 512, extent)
    return bits[:end - first]
all = dirty (0, h.get_size () // 512)
rng = random.Random (1)
for i in range (50):
    first = rng.randrange (len (all))
    end = min (len (all), first + rng.randrange (1, 3000))
    assert dirty (first, end) == all[first:end], (first, end)
open (sys.argv[2], "w").write ("".join ("01"[b] for b in all))
END

# map NAME...: the map of these bitmaps
map ()
{
    local args=() b
    for b; do
        args+=(qcow2ext-bitmap="$b")
    done
    serve s -r --filter="$qcow2ext" file x.qcow2 "${args[@]}"
    "$PYTHON" map.py s.sock "map.$*"
    stop s
}
for names in a b c none "a b" "c a" "a b c" "c none b a"; do
    # shellcheck disable=SC2086
    map $names
done
"$PYTHON" - <<'END'
one = {n: open ("map." + n).read () for n in ("a", "b", "c", "none")}
assert "1" not in one["none"]
for n in "abc":
    assert 0 < one[n].count ("1") < len (one[n]), n
for names in ("a b", "c a", "a b c", "c none b a"):
    any = "".join (max (bits) for bits in
                   zip (*(one[n] for n in names.split ())))
    assert open ("map." + names).read () == any, names
END

# One that is missing or inconsistent spoils it all.
expect_fail 'no bitmap "d"' nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
            qcow2ext-bitmap=a qcow2ext-bitmap=d --run true
