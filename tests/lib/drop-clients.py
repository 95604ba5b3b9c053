#!/usr/bin/python3
"""Connect to an NBD server and drop, after every number of bytes sent.

  drop-clients.py SOCKET negotiation|requests
"""

import socket
import struct
import sys

IHAVEOPT = b"IHAVEOPT"


def option(kind, data=b""):
    return IHAVEOPT + struct.pack(">II", kind, len(data)) + data


def request(kind, offset, length, cookie):
    return struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length)


def main():
    context = b"base:allocation"
    name = struct.pack(">IH", 0, 0)
    talk = [
        struct.pack(">I", 3),                       # client flags
        option(8),                                  # structured replies
        option(3),                                  # list
        option(6, name),                            # info
        option(10, struct.pack(">III", 0, 1, len(context)) + context),
        option(7, name),                            # go
    ]
    talk += [request(0, i * 65536, 65536, i) for i in range(32)]
    talk += [request(7, 0, 1 << 22, 99), request(5, 0, 1 << 20, 100)]
    whole = b"".join(talk)
    n = 0
    stops = set()
    for t in talk[:6]:
        stops.update((n, n + 1, n + len(t) - 1, n + len(t)))
        n += len(t)
    if sys.argv[2] == "requests":
        stops = {len(whole)}
        stops.update(range(n, len(whole), 13))
    for stop in sorted(stops):
        for wait in (False, True):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(0.02)
            s.connect(sys.argv[1])
            try:
                s.sendall(whole[:stop])
                if wait:
                    s.recv(100)
                    s.recv(100000)
            except OSError:
                pass
            s.close()


if __name__ == "__main__":
    main()
