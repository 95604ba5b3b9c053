#!/usr/bin/env bash
# An image is served only from the file that is locked: one that has taken the
# name of another image, for which the lock was taken, is refused, be it that
# clients use the other exports of the old one or that it came this moment.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# image FILE BYTE
image ()
{
    qemu-img create -q -f qcow2 "$1" 4M
    qemu-io -f qcow2 -c "write -P $2 0 64k" "$1" > out
    qemu-img snapshot -c one "$1"
}

cat > clients.py <<'END2'
import nbd, os, subprocess, sys
mode = sys.argv[1]
def connect (name):
    h = nbd.NBD ()
    h.connect_uri ("nbd+unix:///%s?socket=%s" % (name, sys.argv[2]))
    return h
def refused (name):
    try:
        connect (name)
    except nbd.Error:
        return
    sys.exit ("%s: it was not refused" % (name or "the disk"))
def has (h, byte):
    assert h.pread (4096, 0) == bytes ([byte]) * 4096
def locked ():
    qemu = subprocess.run (["qemu-io", "-f", "qcow2", "-c", "write 1M 64k",
                            "x.qcow2"], capture_output=True, text=True)
    assert "lock" in qemu.stderr, "QEMU may write as well: %s" % qemu

if mode == "beside":
    a = connect ("")
    os.rename ("y.qcow2", "x.qcow2")
    refused ("snapshot:1")
    joined = connect ("")
    for h in joined, a:
        has (h, 1)
        h.shutdown ()
else:
    # Replaced when it has been opened so many times: for the lock, to be
    # written to, by the plugin.
    os.rename ("y.qcow2", "x.qcow2." + mode)
    refused ("")
    assert not os.path.exists ("x.qcow2." + mode)
c = connect ("")
has (c, 2)
c.pwrite (b"\3" * 65536, 2 << 20)
locked ()
b = connect ("snapshot:1")
has (b, 2)
c.shutdown ()
b.shutdown ()
END2

export REPLACE_FILE=$tmp/x.qcow2
for mode in beside 1 2; do
    image x.qcow2 1
    image y.qcow2 2
    # The plugin's own would look like a filter's.
    truncate -s +64K y.qcow2
    serve_preloaded replace-file s --filter="$qcow2ext" file x.qcow2 \
                    qcow2ext-exports=all
    timeout 120 "$PYTHON" clients.py $mode "$tmp/s.sock" ||
        fail "replaced: $mode"
    stop s
    clean
done

# The message says what to do.
image x.qcow2 1
image y.qcow2 2
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-exports=all
timeout 120 "$PYTHON" clients.py beside "$tmp/s.sock"
stop s
grep 'x.qcow2: the image has been replaced .* disconnect them' s.log
