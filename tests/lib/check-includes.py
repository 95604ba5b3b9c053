#!/usr/bin/env python3
"""Who includes whom.

    check-includes.py FILTER

Reads the #include lines of the files below FILTER, the directory of the
filter's sources.  The engine's rooms, FILTER/qcow2/ROOM, are in an order: a file
includes headers of its own room and of those before it, by ROOM/NAME, and
nothing of the filter or of nbdkit.  No header includes itself by way of others.
The filter may include any room.
"""

import os
import re
import sys

ROOMS = ["base", "disk", "commit", "space", "map", "data", "image"]


def includes(path):
    with open(path) as f:
        return re.findall(r'^\s*#\s*include\s*(["<][^">]*)[">]', f.read(), re.M)


def main(top):
    bad, headers = [], {}
    for directory, _, files in os.walk(top):
        for file in files:
            if not file.endswith((".c", ".h")):
                continue
            path = os.path.join(directory, file)
            name = os.path.relpath(path, top)
            parts = name.split(os.sep)
            room = parts[1] if parts[0] == "qcow2" and len(parts) == 3 else None
            if parts[0] == "qcow2" and room not in ROOMS:
                bad.append("%s: not in a room" % name)
                continue
            named = set()
            for include in includes(path):
                other = include[1:]
                if include[0] == "<":
                    if room and re.match("nbdkit|libnbd", other):
                        bad.append("%s: the engine includes %s" % (name, other))
                    continue
                if other == "build-config.h":
                    continue
                target = os.path.join("qcow2", other)
                if not os.path.exists(os.path.join(top, target)):
                    target = other
                named.add(target)
                if room is None:
                    continue
                to = other.split("/")[0]
                if target == other or to not in ROOMS:
                    bad.append("%s: the engine includes %s" % (name, other))
                elif ROOMS.index(to) > ROOMS.index(room):
                    bad.append("%s: %s is above %s" % (name, other, room))
            if file.endswith(".h"):
                headers[name] = named

    # A header is done when all that it includes is.
    done = set()
    while True:
        more = {h for h in headers.keys() - done
                if not (headers[h] & headers.keys()) - done}
        if not more:
            break
        done |= more
    circle = {h for h in headers.keys() - done}
    # Not those that only lead there.
    while True:
        less = {h for h in circle
                if not any(h in headers[o] for o in circle)}
        if not less:
            break
        circle -= less
    if circle:
        bad.append("a circle: " + " ".join(sorted(circle)))

    print("\n".join(sorted(bad)) or "%d headers" % len(headers))
    return bool(bad) or not headers


sys.exit(main(sys.argv[1]))
