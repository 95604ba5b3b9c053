#!/usr/bin/env bash
# dir=: names that clients make up lead to a file of the directory or nowhere,
# and forge no line of the log.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
cd "$tmp"

mkdir -p store/sub outside
qemu-img create -q -f qcow2 store/a.qcow2 1M
cp store/a.qcow2 outside/secret.qcow2
cp store/a.qcow2 store/sub/b.qcow2
cp store/a.qcow2 "$(printf 'store/latin\xe4')"
cp store/a.qcow2 "store/$(printf 'new\nline')"
ln -s ../outside/secret.qcow2 store/link-out
ln -s a.qcow2 store/link-in
ln -s "$tmp/outside" store/dir-out
ln -s nowhere store/dangling
mkfifo store/fifo
echo 'not an image' > store/other
long=$(printf '%0255d' 7)
cp store/a.qcow2 "store/$long"

# Asks for names as they are: libnbd would not let all of them pass.
cat > ask.py <<'END'
import socket, struct, sys
def ask (path, name):
    """Does the server let a client go on with the export?"""
    s = socket.socket (socket.AF_UNIX)
    s.settimeout (120)
    s.connect (path)
    f = s.makefile ("rb")
    f.read (18)
    s.sendall (struct.pack (">I", 3))
    s.sendall (b"IHAVEOPT" + struct.pack (">II", 7, len (name) + 6)
               + struct.pack (">I", len (name)) + name + b"\0\0")
    while True:
        head = f.read (20)
        if len (head) < 20:
            return False                        # hung up on us
        _, _, kind, n = struct.unpack (">QIII", head)
        f.read (n)
        if kind == 1:
            return True                         # ACK
        if kind & (1 << 31):
            return False
path, tmp = sys.argv[1], sys.argv[2].encode ()
good = [b"a.qcow2", b"%0255d" % 7]
for name in good:
    assert ask (path, name), name
for name in [
        b"", b".", b"..", b"/", b"//", b"./a.qcow2", b"a.qcow2/", b"/a.qcow2",
        b"../outside/secret.qcow2", b"sub/b.qcow2", b"sub", b"sub/../a.qcow2",
        tmp + b"/outside/secret.qcow2", tmp + b"/store/a.qcow2",
        b"link-out", b"link-in", b"dir-out/secret.qcow2", b"dangling", b"fifo",
        b"other", b"nothing", b"latin\xe4", b"new\nline", b"a.qcow2\n",
        b"a.qcow2\0x", b"\xc0\xae\xc0\xae", b"\xed\xa0\x80", b"\xf4\x90\x80\x80",
        b"\xe2\x80", b"x\nnbdkit: error: forged", b"\x1b[2J",
        b"a.qcow2/snapshot:1", b"a.qcow2/bitmap:x", b"a.qcow2/",
        b"../outside/secret.qcow2/snapshot:1", b"a.qcow2/x", b"/snapshot:1",
        b"x" * 256, b"x" * 4096, b"../" * 1365]:
    assert not ask (path, name), name
    assert ask (path, good[0])
END

for exports in disk all; do
    serve_log s --filter="$qcow2ext" file dir=store qcow2ext-exports=$exports
    timeout 120 "$PYTHON" ask.py "$tmp/s.sock" "$tmp" || {
        cat s.log
        fail "qcow2ext-exports=$exports"
    }
    stop s
    ! grep '^nbdkit: error: forged' s.log || fail "a line was forged"
    grep -q 'link-out: with dir=, symbolic links are not followed' s.log
    grep -q 'fifo: with dir=, an image is a regular file' s.log
    grep -q 'nothing: there is no such image; nbdinfo --list' s.log
    grep -q 'a name.* cannot be one\|whose name cannot be one' s.log
    grep -q 'other: not a qcow2 image' s.log
done
