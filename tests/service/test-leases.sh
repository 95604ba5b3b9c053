#!/usr/bin/env bash
# A file of which another program has a lease (a file server, for a client of its
# own) is opened when that has been given up: the image is locked and can grow,
# and nothing is refused.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
touch probe
requires "$PYTHON" -c 'import fcntl
fcntl.fcntl (open ("probe"), fcntl.F_SETLEASE, fcntl.F_RDLCK)'

# lease read|write FILE
lease ()
{
    "$PYTHON" "$lib/lease.py" "$@" &
    holder=$!
    cleanup_fn _kill_pid "$holder"
    wait_until "a lease of $2" [ -e "$2.held" ]
    rm "$2.held"
}

# asked FILE: the lease was asked for, or the test is not one.
asked ()
{
    [ -e "$1.asked" ] || fail "nobody has opened $1"
    rm "$1.asked"
    wait "$holder"
}

# grows EXPORT: its image is locked, and becomes larger.
cat > grows.py <<'END2'
import nbd, subprocess, sys
image, uri = sys.argv[1:]
h = nbd.NBD ()
h.connect_uri (uri)
qemu = subprocess.run (["qemu-io", "-f", "qcow2", "-c", "write 0 64k", image],
                       capture_output=True, text=True)
assert "lock" in qemu.stderr, qemu
h.pwrite (b"x" * (1 << 20), 0)
h.flush ()
h.shutdown ()
END2
grows ()
{
    timeout 120 "$PYTHON" grows.py "$@"
}

# The image, before the server starts and after that.
for kind in read write; do
    new_image x.qcow2 4M
    [ $kind = read ] || lease $kind x.qcow2
    serve s --filter="$qcow2ext" file x.qcow2
    [ $kind = read ] || asked x.qcow2
    lease $kind x.qcow2
    grows x.qcow2 "$(uri s)"
    asked x.qcow2
    stop s
    clean
done

# What it names: a data file, a backing file.
new_image -o data_file=x.data x.qcow2 4M
serve s --filter="$qcow2ext" file x.qcow2
lease read x.data
grows x.qcow2 "$(uri s)"
asked x.data
stop s
qemu-img create -q -f qcow2 base 4M
new_image -b base -F qcow2 x.qcow2 4M
serve s --filter="$qcow2ext" file x.qcow2
lease write base
grows x.qcow2 "$(uri s)"
asked base
stop s
clean

# Images of a directory: when they are listed, and when they are opened.
mkdir store
qemu-img create -q -f qcow2 store/x 4M
serve s --filter="$qcow2ext" file dir=store
lease write store/x
nbdinfo --list "$(uri s)" > list
asked store/x
grep 'export="x"' list
lease read store/x
grows store/x "nbd+unix:///x?socket=$tmp/s.sock"
asked store/x
stop s
clean store/x
