#!/usr/bin/env bash
# The map of an image far away: tables that a request wants are read side by
# side, and the map is the same.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdinfo --version
requires nbdkit nbd --version
requires nbdkit --filter=log --filter=delay null --version
cd "$tmp"

qemu-img create -q -f qcow2 x.qcow2 16G
for ((i = 0; i < 32; i += 3)); do
    args+=(-c "write -q $((i * 512))M 128K")
done
qemu-io "${args[@]}" x.qcow2
served 'nbdinfo --map "$uri" > near.map' file x.qcow2
serve far -r --filter=log --filter=delay file x.qcow2 logfile=log rdelay=10ms

: > log
served 'nbdinfo --map "$uri" > far.map' nbd uri="$(uri far)"
diff near.map far.map
[ "$(grep -c " data" far.map)" = 11 ] || fail "not all data is in the map"
most=$(awk '/Read id=.*offset=/ { if (++n > most) most = n }
            /\.\.\.Read id=/ { n-- }
            END { print most }' log)
echo "$most reads at a time"
[ "$most" -ge 3 ] || fail "tables were read one after another"

# One that is damaged hides nothing of the others.
"$PYTHON" - <<'END'
import struct
f = open ("x.qcow2", "r+b")
f.seek (40)
l1 = struct.unpack (">Q", f.read (8))[0]
f.seek (l1 + 9 * 8)
f.write (struct.pack (">Q", 1 << 63 | 0x123400))
END
served 'nbdinfo --map "$uri" > far.map' nbd uri="$(uri far)"
starts_at=$((9 * 536870912))
awk -v at=$starts_at '$1 == at && $2 == 536870912 && /data/ { found = 1 }
                      END { exit !found }' far.map ||
    fail "the damaged table is not reported as data"
others ()
{
    awk -v at=$starts_at '/data/ && $1 != at { print $1, $2 }' "$1"
}
diff <(others near.map) <(others far.map)
