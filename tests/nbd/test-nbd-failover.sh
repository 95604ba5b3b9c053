#!/usr/bin/env bash
# The data is reached through a proxy, which cuts one of several connections and
# from then on leads to another server.  A flush covers changes on whichever
# server they are: so all connections go to the other one.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data x.qcow2 16M
truncate -s 16M x.data

cat > proxy.py <<'END'
import os, socket, threading, time
def connect (name):
    s = socket.socket (socket.AF_UNIX)
    s.connect (name)
    return s
def end (*sockets):
    for s in sockets:
        try:
            s.shutdown (socket.SHUT_RDWR)
        except OSError:
            pass
def pump (a, b):
    try:
        while True:
            data = a.recv (1 << 20)
            if not data:
                break
            b.sendall (data)
    except OSError:
        pass
    end (a, b)
target = "old.sock"
pairs = []
def cut ():
    global target
    while not os.path.exists ("cut"):
        time.sleep (0.02)
    target = "new.sock"
    end (*pairs[-1])
    open ("was-cut", "w").close ()
threading.Thread (target=cut, daemon=True).start ()
listener = socket.socket (socket.AF_UNIX)
listener.bind ("proxy.sock")
listener.listen (9)
while True:
    c = listener.accept ()[0]
    pairs.append ((c, connect (target)))
    for a, b in pairs[-1], pairs[-1][::-1]:
        threading.Thread (target=pump, args=(a, b), daemon=True).start ()
END

cat > client.py <<'END'
import nbd, os, sys, time
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
def write (data):
    ops = [h.aio_pwrite (data * 65536, i * 65536) for i in range (64)]
    while ops:
        h.poll (-1)
        ops = [o for o in ops if not h.aio_command_completed (o)]
def log (name):
    with open (name) as f:
        return f.readlines ()
def count (name, what):
    return sum (" %s " % what in line for line in log (name))
def until (condition):
    end = time.monotonic () + 120
    while not condition ():
        if time.monotonic () > end:
            sys.exit ("not within two minutes")
        time.sleep (0.02)
write (b"1")
h.flush ()
until (lambda: count ("old.log", "Connect") == 4)
open ("cut", "w").close ()
until (lambda: os.path.exists ("was-cut"))
# Where all have to connect anew, somebody has to want it.
for i in range (6000):
    h.pread (4096, 0)
    if count ("new.log", "Connect"):
        break
    time.sleep (0.02)
before = len (log ("old.log"))
write (b"2")
h.flush ()
for name, lines in ("old", log ("old.log")[before:]), ("new", log ("new.log")):
    writes, flushes = [[i for i, line in enumerate (lines) if what in line]
                       for what in (" Write ", " Flush ")]
    print (name, len (writes), len (flushes))
    assert not writes or flushes and flushes[-1] > writes[-1], \
        "the %s server was not told to flush" % name
# Those to the old server end.
until (lambda: count ("old.log", "Disconnect") == 4)
h.shutdown ()
END

serve old --filter=log file x.data logfile="$tmp/old.log"
serve new --filter=log file x.data logfile="$tmp/new.log"
"$PYTHON" proxy.py &
cleanup_fn kill $!
wait_until "the proxy listens" [ -S proxy.sock ]
serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-read-ahead-size=0 \
          qcow2ext-data-file="$(uri proxy)"
timeout 200 "$PYTHON" client.py "$(uri s)" || { cat s.log; exit 1; }
stop s
cat s.log
! grep -q 'not flushed' s.log || fail "something was taken for lost"
clean
