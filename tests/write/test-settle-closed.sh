#!/usr/bin/env bash
# When the last client has gone the image is complete at once: no errors, no
# leaks, and no tail that is not in use.  Probes change nothing at all.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > session.py <<'END'
import nbd, random, sys
uri, seed, ending = sys.argv[1], sys.argv[2], sys.argv[3]
rng = random.Random (seed)
with open ("model.raw", "rb") as f:
    model = bytearray (f.read ())
h = nbd.NBD ()
h.connect_uri (uri)
size = h.get_size ()
for i in range (60):
    n = int (3 * 65536 ** rng.random ())
    at = rng.randrange (size - n)
    if rng.random () < 0.7:
        blob = rng.randbytes (n)
        h.pwrite (blob, at)
        model[at:at + n] = blob
    else:
        h.zero (n, at)
        model[at:at + n] = bytes (n)
if ending == "trim":
    # All that the session has allocated, and more, is let go.
    h.zero (size, 0)
    model = bytearray (size)
with open ("model.raw", "wb") as f:
    f.write (model)
if ending == "drop":
    # Like a client that was killed, without NBD_CMD_DISC, but everything has
    # been answered.
    import os
    os._exit (0)
h.shutdown ()
END

settled ()
{
    local end size
    clean
    identical model.raw
    end=$(end_offset)
    size=$(stat -c %s x.qcow2)
    [ "$size" -le $((before > end ? before : end)) ] ||
        fail "$size bytes, uses $end, had $before"
}

try ()
{
    local ending seed=0
    new_image -o "$1" x.qcow2 8M
    : > model.raw
    truncate -s 8M model.raw
    serve s --filter="$qcow2ext" file x.qcow2
    for ending in close trim close drop; do
        seed=$((seed + 1))
        before=$(stat -c %s x.qcow2)
        "$PYTHON" session.py "$(uri s)" "$seed" "$ending"
        if [ $ending = drop ]; then
            # The server may notice a moment later.
            wait_until "the image is complete" \
                       qemu-img check -q -f qcow2 x.qcow2
        fi
        settled
        case $1 in
            *raw=on*) same_file model.raw x.data ;;
        esac
    done

    # Looking.
    sha256sum x.* > sums
    stat -c '%n %s %b %y %z' x.* > stats
    nbdinfo "$(uri s)" > /dev/null
    nbdinfo --list "$(uri s)" > /dev/null
    nbdinfo --map "$(uri s)" > /dev/null
    nbdinfo --can write "$(uri s)"
    nbdsh -u "$(uri s)" -c 'assert not h.is_read_only ()' \
          -c 'h.flush ()' -c 'h.pread (4096, 77)' -c 'h.shutdown ()'
    nbdsh -u "$(uri s)" -c 'import os; os._exit (0)'
    nbdsh -c 'h.set_opt_mode (True)' -c "h.connect_uri ('$(uri s)')" \
          -c 'h.opt_info ()' -c 'h.opt_abort ()'
    "$PYTHON" - "$tmp/s.sock" <<'EOF'
import socket, sys
for n in range (3):
    s = socket.socket (socket.AF_UNIX)
    s.connect (sys.argv[1])
    s.recv (18)
    if n:
        s.send (b"\0\0\0\3")
    if n > 1:
        s.send (b"IHAVEOPT\0\0")
    s.close ()
EOF
    sleep 0.1
    stat -c '%n %s %b %y %z' x.* | diff stats - ||
        fail "probes have changed a file"
    stop s
    stat -c '%n %s %b %y %z' x.* | diff stats - ||
        fail "ending after probes has changed a file"
    sha256sum -c --quiet sums
}

try cluster_size=64K
try cluster_size=512
try cluster_size=4K,lazy_refcounts=on
try cluster_size=64K,extended_l2=on
try data_file=x.data
try data_file=x.data,data_file_raw=on
try data_file=x.data,data_file_raw=on,preallocation=metadata
