#!/usr/bin/env bash
# A client that has written and goes, while what another has left is being
# brought to disk, sees the end of its connection when all of its own is there,
# and not when that of the other is.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
export FAIL_IO=$tmp/control

cat > client.py <<'END'
import nbd, os, sys, time
uri, letter, at = sys.argv[1:]
h = nbd.NBD ()
h.connect_uri (uri)
h.pwrite (letter.encode () * 65536, int (at) << 16)
open (letter + ".wrote", "w").close ()
while not os.path.exists ("go"):
    time.sleep (0.02)
h.shutdown ()
END

# Lets the flush go on that is held, and holds the next one.
hold=0
hold_next ()
{
    rm -f "$FAIL_IO.met"
    hold=$((hold + 1))
    printf 'fdatasync x.qcow2 0 0%*s' $hold "" > order
    mv order "$FAIL_IO"
}
held_or_gone () { [ -e "$FAIL_IO.met" ] || ! _running $b; }

new_image x.qcow2 4M
serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2
"$PYTHON" client.py "$(uri s)" a 0 &
a=$!
wait_until "a.wrote is there" [ -e a.wrote ]
hold_next
: > go
wait_until "a flush is held" [ -e "$FAIL_IO.met" ]
"$PYTHON" client.py "$(uri s)" b 20 &
b=$!
wait_until "b.wrote is there" [ -e b.wrote ]
sleep 0.2                       # it goes
flushes=0
while _running $b; do
    flushes=$((flushes + 1))
    hold_next
    wait_until "a flush is held, or the client has gone" held_or_gone
    sleep 0.2
    [ ! -e "$FAIL_IO.met" ] || _running $b ||
        fail "gone before flush $flushes of those that followed"
done
rm "$FAIL_IO"
wait $a
wait $b
[ $flushes -ge 4 ] || fail "only $flushes flushes"
stop s
clean
