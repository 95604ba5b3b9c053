# How long do a write of 512 bytes and a flush take beside 30 writers of whole
# blocks that never pause?
import argparse, sys, threading, time
import nbd

p = argparse.ArgumentParser ()
p.add_argument ("uri")
p.add_argument ("--seconds", type=float, default=60, help="give up then")
p.add_argument ("--times", type=int, default=3)
a = p.parse_args ()

WRITERS, CONNECTIONS, BLOCK = 30, 3, 4096
stop = threading.Event ()
done = 0

def writers (first, n):
    """n writers with a connection; each one writes where no other does."""
    global done
    h = nbd.NBD ()
    h.connect_uri (a.uri)
    data = b"w" * BLOCK
    busy = {}
    while not stop.is_set ():
        for i in range (n):
            if i not in busy:
                busy[i] = h.aio_pwrite (data, (first + i) << 16)
        h.poll (-1)
        for i, cookie in list (busy.items ()):
            if h.aio_command_completed (cookie):
                del busy[i]
                done += 1
    while busy:
        h.poll (-1)
        busy = {i: c for i, c in busy.items ()
                if not h.aio_command_completed (c)}
    h.shutdown ()

h = nbd.NBD ()
h.connect_uri (a.uri)
spare = WRITERS << 16

def measure (what):
    worst = {}
    for i in range (a.times):
        for name, command in (
                ("512-byte write",
                 lambda: h.aio_pwrite (b"s" * 512, spare + 512)),
                ("flush", h.aio_flush)):
            begin = time.monotonic ()
            cookie = command ()
            while not h.aio_command_completed (cookie):
                if time.monotonic () - begin > a.seconds:
                    stop.set ()
                    sys.exit ("%s %s: not done after %d s"
                              % (name, what, a.seconds))
                h.poll (100)
            t = time.monotonic () - begin
            worst[name] = max (worst.get (name, 0), t)
    for name, t in worst.items ():
        print ("%s, %s: %.0f ms at most" % (name, what, t * 1000))

h.pwrite (b"a" * ((WRITERS + 2) << 16), 0)
h.flush ()
measure ("alone")
each = WRITERS // CONNECTIONS
threads = [threading.Thread (target=writers, args=(i * each, each),
                             daemon=True)
           for i in range (CONNECTIONS)]
for t in threads:
    t.start ()
# All of them are in the middle of it.
begin = time.monotonic ()
while done < 10 * WRITERS:
    if time.monotonic () - begin > a.seconds:
        sys.exit ("the writers do not write")
    time.sleep (0.01)
before = done
measure ("beside %d writers" % WRITERS)
print ("%d whole blocks were written meanwhile" % (done - before))
assert done > before, "there was no load"
stop.set ()
for t in threads:
    t.join ()
h.shutdown ()
