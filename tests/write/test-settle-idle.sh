#!/usr/bin/env bash
# Some seconds after the last write the image is complete although clients are
# still connected, and to kill the server then loses nothing.  A server that is
# told to end, with a client that does nothing, completes the image, too.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# Writes without a flush, says so, and stays.
cat > client.py <<'END'
import nbd, os, random, sys, time
uri, name = sys.argv[1:]
rng = random.Random (name)
h = nbd.NBD ()
h.connect_uri (uri)
size = h.get_size ()
model = bytearray (size)
for i in range (80):
    n = int (3 * 40000 ** rng.random ())
    at = rng.randrange (size - n)
    if rng.random () < 0.7:
        blob = rng.randbytes (n)
        h.pwrite (blob, at)
        model[at:at + n] = blob
    else:
        h.zero (n, at)
        model[at:at + n] = bytes (n)
with open (name + ".raw", "wb") as f:
    f.write (model)
os.rename (name + ".raw", name + ".model")
time.sleep (600)
END

kinds=("cluster_size=64K" "cluster_size=4K,lazy_refcounts=on"
       "data_file=%.data" "data_file=%.data,data_file_raw=on")
clients=()

begin ()
{
    local i
    for i in "${!kinds[@]}"; do
        rm -f "x$i".*
        qemu-img create -q -f qcow2 -o "${kinds[i]//%/x$i}" "x$i.qcow2" 8M
        serve "x$i" --filter="$qcow2ext" file "x$i.qcow2"
        "$PYTHON" client.py "$(uri "x$i")" "x$i" &
        clients[i]=$!
        cleanup_fn _kill_pid "${clients[i]}"
    done
    for i in "${!kinds[@]}"; do
        wait_until "client $i has written" [ -e "x$i.model" ]
    done
}

finish ()
{
    local i
    for i in "${!kinds[@]}"; do
        _kill_pid "${clients[i]}"
        clean "x$i.qcow2"
        identical "x$i.model" "x$i.qcow2"
        [ "$(stat -c %s "x$i.qcow2")" -le "$(end_offset "x$i.qcow2")" ] ||
            fail "x$i.qcow2 has a tail that is not in use"
    done
    same_file x3.model x3.data
}

# complete N: image N is sound, without a leak, and holds all of the model.
complete ()
{
    qemu-img check -q -U -f qcow2 "x$1.qcow2" &&
        qemu-img compare -q -U -f raw -F qcow2 "x$1.model" "x$1.qcow2"
}

begin
for i in "${!kinds[@]}"; do
    wait_until "idle, x$i.qcow2 is complete" complete "$i"
    clean "x$i.qcow2" -U
    # The lock is still there.
    expect_fail lock qemu-img check -f qcow2 "x$i.qcow2"
    _running "${clients[i]}" || fail "the client has gone"
    kill -9 "$(< "x$i.pid")"
done
finish

begin
for i in "${!kinds[@]}"; do
    _running "${clients[i]}" || fail "the client has gone"
    kill "$(< "x$i.pid")"
done
for i in "${!kinds[@]}"; do
    pid=$(< "x$i.pid")
    # Complete, though the server may wait for its client yet.
    wait_until "told to end, x$i.qcow2 is complete" complete "$i"
    if _running "$pid"; then
        kill -9 "$pid" || true
    fi
done
finish
