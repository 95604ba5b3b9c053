#!/usr/bin/python3
"""Random histories of twin images, one served by us and one by qemu-nbd.

    twins.py FILTER                         a minute, fresh seeds
    twins.py FILTER --seconds 3600 --jobs 2
    twins.py FILTER --seed 7 --histories 1  one again
    twins.py FILTER --seed 7 --shrink       the shortest history that fails, too

An image with random features is made by QEMU, and copied.  Then the same
requests go to both twins, one by one or some at a time that share no byte,
with acts of qemu-img in between: snapshots are taken, applied and deleted;
bitmaps are made, cleared, switched and removed; the disk grows; clusters are
compressed.  Again and again all clients leave, and the twins are compared:

  - qemu-img check finds neither errors nor leaks in either;
  - what one server has written is read through the other one, and must be the
    model of the disk, in which a trimmed byte is what it was or zero;
  - the maps agree where the format leaves no choice: what no request has
    touched is as it was, what was written is data, what was zeroed is zero;
  - bitmaps are the same, and snapshots what they were;
  - a raw data file is the disk.

Then, by chance, the servers change places: each twin is written to by the
other one from there on.  What is done depends on the seed alone.
"""

import argparse
import collections
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import nbd

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "lib"))
from stress import Model, pattern  # noqa: E402

NAME = "x.qcow2"
LUKS_PARAMETER = "qcow2ext-passphrase=luks"
OURS_PARAMETERS = [["qcow2ext-compress=true"],
                   ["qcow2ext-detect-zeroes=on",
                    "qcow2ext-detect-zeroes=unmap"],
                   ["qcow2ext-direct=true"], ["qcow2ext-l2-cache-size=65536"]]
QEMU, OURS = "qemu", "ours"


class Wrong(Exception):
    pass


class Spoilt(Exception):
    """QEMU alone has damaged the image: it does so when it writes compressed
    clusters among others."""


# --- what a history is ---

def draw_features(rng, a):
    f = {"v2": False, "extended": False, "luks": False, "options": {},
         "bitmaps": [], "snapshots": 0, "backing": None, "ours": []}
    f["kind"] = rng.choice(["internal"] * 5 + ["pair"] * 2 + ["raw"] * 3)
    o = f["options"]
    f["cluster"] = rng.choice([512, 1024, 4096, 4096, 16384, 65536, 65536,
                               65536, 262144, 2097152])
    if f["kind"] == "internal" and rng.random() < 0.15:
        f["v2"] = True
        o["compat"] = "0.10"
    else:
        o["compat"] = "1.1"
        if f["cluster"] >= 16384 and rng.random() < 0.35:
            f["extended"] = True
            o["extended_l2"] = "on"
        if rng.random() < 0.35:
            o["refcount_bits"] = rng.choice([1, 2, 4, 8, 32, 64])
        if rng.random() < 0.2:
            o["lazy_refcounts"] = "on"
        if f["kind"] == "internal" and rng.random() < 0.3:
            o["compression_type"] = "zstd"
        for i in range(rng.choice([0, 0, 1, 2])):
            f["bitmaps"].append(rng.choice([9, 12, 16, 16, 21]))
    o["cluster_size"] = f["cluster"]
    if f["kind"] != "internal":
        o["data_file"] = "x.data"
        o["data_file_raw"] = "on" if f["kind"] == "raw" else "off"
    elif not a.plain and not f["v2"] and rng.random() < 0.2:
        f["luks"] = True
        o["encrypt.format"] = "luks"
        o["encrypt.key-secret"] = "s"
        o["encrypt.iter-time"] = 10
    c = f["cluster"]
    clusters = rng.randint(3, max(4, min(150, (6 << 20) // c)))
    f["size"] = clusters * c + rng.choice([0, 0, 512 * rng.randint(0, c // 512)])
    if f["kind"] != "raw" and rng.random() < 0.45:
        f["backing"] = {
            "format": rng.choice(["raw", "qcow2", "compressed", "chain"]),
            "size": max(512, rng.choice(
                [f["size"], f["size"] // 2, f["size"] * 3 // 2])
                // 512 * 512)}
    elif rng.random() < 0.25 and not f["extended"]:
        o["preallocation"] = rng.choice(["metadata", "falloc", "full"])
        if f["luks"]:
            # Behind its end is what zeros decrypt to, and shows when it grows.
            f["size"] = f["size"] // c * c
    if f["kind"] == "internal":
        f["snapshots"] = rng.choice([0, 0, 0, 1, 2])
    if not a.plain:
        f["ours"] = [rng.choice(p) for p in OURS_PARAMETERS
                     if rng.random() < 0.25]
        if f["kind"] != "internal" or f["luks"]:
            f["ours"] = [p for p in f["ours"] if "compress" not in p]
    f["scribbles"] = rng.choice([0, 5, 30])
    f["scribble-seed"] = rng.randrange(1 << 30)
    return f


def draw_range(rng, f, size):
    c = f["cluster"]
    if f["extended"] and rng.random() < 0.5:
        c //= 32
    how = rng.random()
    at = rng.randrange(size)
    if how < 0.4:                           # whole clusters
        at = at // c * c
        n = c * rng.choice([1, 1, 1, 2, 3, 8])
    elif how < 0.7:                         # around a boundary
        at = max(0, at // c * c + rng.randint(-700, 700))
        n = rng.choice([1, 512, 600, c // 2, c, c + 512])
    elif how < 0.8:                         # much
        n = rng.randint(1, size)
    else:
        n = rng.randint(1, c)
        if rng.random() < 0.5:
            at, n = at // 512 * 512, max(512, n // 512 * 512)
    at = min(at, size - 1)
    if f["luks"]:                           # QEMU takes sectors only, then
        at, n = at // 512 * 512, max(512, n // 512 * 512)
    return at, max(1, min(n, size - at, 1 << 20))


KINDS = ["write"] * 10 + ["zeros"] + ["zero"] * 3 + ["zero-nohole"] * 2 + \
    ["zero-fast"] + ["trim"] * 4 + ["read"] * 3 + ["status"] * 2


def draw_request(rng, f, size):
    kind = rng.choice(KINDS)
    at, n = draw_range(rng, f, size)
    return {"kind": kind, "at": at, "n": n, "fua": rng.random() < 0.05,
            "seed": rng.randrange(1 << 30)}


def draw_act(rng, f):
    acts = ["grow", "qemu-io", "lazy"]
    if not f["v2"]:
        acts += ["bitmap-add", "bitmap-clear", "bitmap-disable",
                 "bitmap-enable", "bitmap-remove", "bitmap-merge"]
    if f["kind"] == "internal":
        acts += ["snapshot-create", "snapshot-apply", "snapshot-delete"] * 2
    return {"act": rng.choice(acts), "seed": rng.randrange(1 << 30)}


def draw_history(seed, a):
    """Features, and a list of steps."""
    rng = random.Random("twins-%d" % seed)
    f = draw_features(rng, a)
    steps, size = [], f["size"]
    for phase in range(rng.randint(2, 4)):
        for i in range(rng.choice([3, 12, 40])):
            how = rng.random()
            if how < 0.10:
                steps.append({"flush": True})
            elif how < 0.13:
                steps.append({"reconnect": True})
            elif how < 0.30:
                steps.append({"batch": [draw_request(rng, f, size)
                                        for i in range(rng.randint(2, 6))]})
            else:
                steps.append({"batch": [draw_request(rng, f, size)]})
        steps.append({"compare": True, "stop": rng.random() < 0.5})
        for i in range(rng.choice([0, 0, 1, 2])):
            steps.append(draw_act(rng, f))
        if rng.random() < 0.5:
            steps.append({"swap": True})
    return f, steps


# --- twins ---

class Twin:
    """An image in a directory of its own, and the server it has just now."""

    def __init__(self, world, where, server):
        self.world = world
        self.dir = os.path.join(world.dir, where)
        self.server = server
        self.process = None
        self.handles = []
        self.raw_is_disk = True             # as long as only we write
        self.model = None

    def qemu(self, tool, *args, ok=(0,), stdin=None):
        """Run a tool of QEMU's in the image's directory."""
        command = [tool] + [str(x) for x in args]
        p = subprocess.run(command, cwd=self.dir, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, input=stdin,
                           stdin=None if stdin else subprocess.DEVNULL,
                           timeout=120)
        self.world.note("%s: %s -> %d" % (os.path.basename(self.dir),
                                          " ".join(command), p.returncode))
        if ok is not None and p.returncode not in ok:
            raise Wrong("%s: %s: %d: %s" % (self.dir, " ".join(command),
                                            p.returncode, p.stdout))
        return p.returncode, p.stdout

    def spec(self, secret=True):
        """How QEMU's tools are told of the image."""
        if not self.world.f["luks"]:
            return ["-f", "qcow2", NAME]
        return (["--object", "secret,id=s,data=luks"] if secret else []) + [
            "--image-opts",
            "driver=qcow2,encrypt.key-secret=s,file.driver=file,"
            "file.filename=" + NAME]

    def start(self, server=None, *extra, readonly=False):
        server = server or self.server
        sock = os.path.join(self.dir, "s.sock")
        if os.path.exists(sock):
            os.unlink(sock)
        if server == OURS:
            command = ["nbdkit", "-f", "-U", sock,
                       "--filter=" + self.world.a.filter, "file", NAME]
            command += [*self.world.f["ours"], *extra]
            if self.world.f["luks"]:
                command.append(LUKS_PARAMETER)
            if readonly:
                command.insert(1, "-r")
        else:
            command = ["qemu-nbd", "-t", "-e", "8", "-k", sock,
                       "--discard=unmap", *extra, *self.spec()]
            if readonly:
                command.insert(1, "-r")
            if not readonly:
                self.raw_is_disk = False
        self.world.note("%s: %s" % (os.path.basename(self.dir),
                                    " ".join(command)))
        log = open(os.path.join(self.dir, "server.log"), "a")
        self.process = subprocess.Popen(command, cwd=self.dir, stdout=log,
                                        stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        deadline = time.monotonic() + 60
        while not os.path.exists(sock):
            if self.process.poll() is not None:
                raise Wrong("%s: the server does not start:\n%s"
                            % (self.dir, self.log()))
            if time.monotonic() > deadline:
                raise Wrong("%s: no socket" % self.dir)
            time.sleep(0.005)

    def log(self):
        with open(os.path.join(self.dir, "server.log")) as f:
            return f.read()[-2000:]

    def connect(self, n=2, context="base:allocation"):
        for i in range(n):
            deadline = time.monotonic() + 60
            while True:
                h = nbd.NBD()
                h.add_meta_context(context)
                try:
                    h.connect_uri("nbd+unix:///?socket=%s/s.sock" % self.dir)
                    break
                except nbd.Error as e:
                    # The socket may be there before anybody listens.
                    if e.errno != "ECONNREFUSED" \
                       or time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
            self.handles.append(h)

    def disconnect(self):
        for h in self.handles:
            h.shutdown()
        self.handles = []

    def stop(self):
        self.disconnect()
        if self.process:
            self.process.terminate()
            if self.process.wait(60) != 0:
                raise Wrong("%s: the server ends with %d:\n%s"
                            % (self.dir, self.process.returncode, self.log()))
            self.process = None

    def abandon(self):
        self.handles = []
        if self.process:
            self.process.kill()
            self.process.wait()

    # What is in the image.

    def wrong(self, what, bad):
        raise Wrong("%s (written by %s): %s: byte %#x (cluster %#x + %#x)"
                    % (self.dir, self.server, what, bad,
                       bad // self.world.f["cluster"],
                       bad % self.world.f["cluster"]))

    def check_read(self, at, blob, what):
        bad = self.model.read(at, blob)
        if bad is not None:
            self.wrong("%s is %#x, not %#x" % (what, blob[bad - at],
                                               self.model.data[bad]), bad)

    def read_all(self, server, *extra):
        """The disk, read through one of the servers."""
        self.start(server, *extra, readonly=True)
        self.connect(1)
        h, blob = self.handles[0], bytearray()
        size = h.get_size()
        while len(blob) < size:
            blob += h.pread(min(1 << 22, size - len(blob)), len(blob))
        self.stop()
        return bytes(blob)

    def bitmap(self, name, server):
        """Ranges that are dirty, says a server."""
        if server == QEMU:
            context, dirty = "qemu:dirty-bitmap:" + name, 1
            self.start(QEMU, "-B", name, readonly=True)
        else:
            context, dirty = "base:allocation", 0
            self.start(OURS, "qcow2ext-bitmap=" + name, readonly=True)
        self.connect(1, context)
        h, ranges, pos = self.handles[0], [], 0
        size = h.get_size()

        def extents(metacontext, offset, entries, error):
            nonlocal pos
            for n, flags in zip(entries[::2], entries[1::2]):
                if (flags & 1) == dirty:
                    if ranges and ranges[-1][1] == pos:
                        ranges[-1][1] = pos + n
                    else:
                        ranges.append([pos, pos + n])
                pos += n
            return 0
        while pos < size:
            h.block_status(min(size - pos, 1 << 30), pos, extents)
        self.stop()
        return [[a, min(b, size)] for a, b in ranges]

    def map(self):
        """(zero, data, depth) of each sector, says QEMU."""
        _, out = self.qemu("qemu-img", "map", "--output=json", *self.spec())
        sectors = []
        for e in json.loads(out):
            # Of data, QEMU looks into the file for holes.
            sectors += [(e["zero"] and not e["data"], e["data"],
                         e["depth"])] * (e["length"] // 512)
        return sectors


class World:
    def __init__(self, seed, features, steps, a, directory):
        self.seed, self.f, self.steps, self.a = seed, features, steps, a
        self.dir = directory
        self.notes = []
        self.twins = [Twin(self, "ours", OURS), Twin(self, "qemu", QEMU)]
        # What is in a snapshot; sectors that a bitmap may have.
        self.snapshots = {}
        self.bitmaps = []
        self.leaks = False      # what QEMU refuses may cost it a cluster
        self.spoilt = False
        self.count = 0
        self.compared = 0
        # What has become of each sector: see note_change.
        self.fate = None

    def note(self, what):
        self.notes.append(what)

    # Making the images.

    def scribble(self, twin, count, seed, size):
        rng = random.Random(seed)
        lines = []
        for i in range(count):
            at, n = draw_range(rng, self.f, size)
            at, n = at // 512 * 512, -(-n // 512) * 512
            n = min(n, size - at)
            how = rng.random()
            c = self.f["cluster"]
            if how < 0.3 and self.f["kind"] == "internal":
                at = at // c * c
                n = min(c, size - at)
                lines.append("write -q -c -P %d %d %d" % (1 + i % 255, at, n))
            elif how < 0.7:
                lines.append("write -q -P %d %d %d" % (1 + i % 255, at, n))
            elif how < 0.85:
                lines.append("write -q -z %d %d" % (at, n))
            else:
                lines.append("discard -q %d %d" % (at, n))
        # QEMU refuses to compress what has a place.
        result = twin.qemu("qemu-io", "-d", "unmap", *twin.spec(), ok=None,
                           stdin="\n".join(lines) + "\n")[0]
        with open(os.path.join(twin.dir, NAME), "rb") as f:
            header = f.read(80)
        if header[7] > 2 and header[79] & 2:    # marked corrupt
            raise Spoilt()
        if twin.qemu("qemu-img", "check", *twin.spec(), ok=None)[0] == 2:
            raise Spoilt()
        return result

    def create(self):
        first, other = self.twins
        os.mkdir(first.dir)
        f, more = self.f, []
        if f["backing"]:
            b = f["backing"]
            n = b["size"]
            with open(os.path.join(first.dir, "base.raw"), "wb") as out:
                rng = random.Random(f["scribble-seed"])
                for at in range(0, n, 65536):
                    m = min(65536, n - at)
                    out.write(rng.choice([bytes(m), rng.randbytes(m),
                                          pattern(9999999, at, m)]))
            if b["format"] == "raw":
                more = ["-b", "base.raw", "-F", "raw"]
            else:
                first.qemu("qemu-img", "convert", "-f", "raw", "-O", "qcow2",
                           *(["-c"] if b["format"] == "compressed" else []),
                           "base.raw", "base.qcow2")
                more = ["-b", "base.qcow2", "-F", "qcow2"]
            if b["format"] == "chain":
                first.qemu("qemu-img", "create", "-f", "qcow2", "-b",
                           "base.qcow2", "-F", "qcow2", "middle.qcow2")
                first.qemu("qemu-io", "-f", "qcow2", "-c",
                           "write -q -P 33 0 %d" % min(n, 5120),
                           "middle.qcow2")
                more = ["-b", "middle.qcow2", "-F", "qcow2"]
        options = ",".join("%s=%s" % kv for kv in f["options"].items())
        secret = ["--object", "secret,id=s,data=luks"] if f["luks"] else []
        command = ["qemu-img", "create", *secret, "-f", "qcow2", "-o",
                   options, *more, NAME, f["size"]]
        # QEMU gives up making a key if the clock says that it took no time.
        for i in range(20 if f["luks"] else 0):
            if first.qemu(*command, ok=None)[0] == 0:
                break
        else:
            first.qemu(*command)
        self.scribble(first, f["scribbles"], f["scribble-seed"], f["size"])
        for i, bits in enumerate(f["bitmaps"]):
            first.qemu("qemu-img", "bitmap", "--add", "-g", 1 << bits,
                       *first.spec(), "b%d" % i)
            self.bitmaps.append("b%d" % i)
        self.size = f["size"]
        blob = first.read_all(QEMU)
        first.server, first.raw_is_disk = OURS, True
        for i in range(f["snapshots"]):
            if first.qemu("qemu-img", "snapshot", "-c", "s%d" % i,
                          *self.snapshot_spec(first), ok=None)[0] == 0:
                self.snapshots["s%d" % i] = blob
            else:
                self.leaks = True
        for t in self.twins:
            t.model = Model(self.size, None)
            t.model.write(0, blob)
        self.fate = bytearray(self.size // 512)
        for name in ("server.log", "s.sock"):
            if os.path.exists(os.path.join(first.dir, name)):
                os.unlink(os.path.join(first.dir, name))
        subprocess.run(["cp", "-a", first.dir, other.dir],
                       check=True)

    def snapshot_spec(self, twin):
        # 'snapshot' has no -f.
        return twin.spec() if self.f["luks"] else [NAME]

    # Requests.

    UNTOUCHED, DATA, ZERO, UNKNOWN = range(4)

    def note_change(self, at, n, fate):
        """Clusters (or subclusters) of which all has been written or zeroed,
        are data or zero; of others it is known that they were touched."""
        unit = self.f["cluster"] // (32 if self.f["extended"] else 1)
        c = self.f["cluster"] // 512
        for s in range(at // 512 // c * c,
                       min(len(self.fate), -(-(at + n) // 512 // c) * c)):
            # A cluster of subclusters that is copied may be copied as data.
            if self.fate[s] == self.UNTOUCHED or (
                    self.f["extended"] and self.fate[s] == self.ZERO):
                self.fate[s] = self.UNKNOWN
        first, last = at // unit, (at + n - 1) // unit
        if self.f["extended"] and fate == self.ZERO and (at % self.f["cluster"]
                                                          or n % self.f["cluster"]):
            fate = self.UNKNOWN     # zeros may be written around the edges
        for u in range(first, last + 1):
            begin, end = u * unit, min((u + 1) * unit, self.size)
            now = fate
            if (at > begin or at + n < end) and not (
                    fate == self.DATA
                    and self.fate[begin // 512] == self.DATA):
                now = self.UNKNOWN
            for s in range(begin // 512, end // 512):
                self.fate[s] = now

    def content(self, q):
        if q["kind"] == "zeros":
            return bytes(q["n"])
        rng = random.Random(q["seed"])
        if rng.random() < 0.3:
            return rng.randbytes(q["n"])
        return pattern(q["seed"], q["at"], q["n"])

    def send(self, twin, h, q):
        """Returns what has to be called with the error when it is done."""
        kind, at, n, m = q["kind"], q["at"], q["n"], twin.model
        fua = nbd.CMD_FLAG_FUA if q["fua"] else 0
        done = []

        def completed(error):
            done.append(getattr(error, "value", error))
            return 1
        after = None
        if kind == "read":
            buf = nbd.Buffer(n)
            h.aio_pread(buf, at, completion=completed)

            def after():
                twin.check_read(at, buf.to_bytearray(), "what is read")
        elif kind in ("write", "zeros"):
            blob = self.content(q)
            buf = nbd.Buffer.from_bytearray(bytearray(blob))
            h.aio_pwrite(buf, at, completion=completed, flags=fua)

            def after(buf=buf):
                m.write(at, blob)
        elif kind.startswith("zero"):
            flags = {"zero": 0, "zero-nohole": nbd.CMD_FLAG_NO_HOLE,
                     "zero-fast": nbd.CMD_FLAG_FAST_ZERO}[kind]
            h.aio_zero(n, at, completion=completed, flags=flags | fua)

            def after():
                if done[0] and kind == "zero-fast" and done[0] in (95, 524):
                    done[0] = 0
                    m.trim(at, n)
                else:
                    m.zero(at, n)
        elif kind == "trim":
            h.aio_trim(n, at, completion=completed, flags=fua)

            def after():
                m.trim(at, n)
        else:
            answers = []

            def extents(context, start, entries, error):
                if context == "base:allocation":
                    answers.append((start, list(entries)))
                return 0
            h.aio_block_status(n, at, extents, completion=completed)

            def after():
                self.check_status(twin, at, n, answers)

        def finish():
            if after:
                after()
            if done[0]:
                raise Wrong("%s: errno %d from %s" % (twin.dir, done[0], q))
        return done, finish

    def check_status(self, twin, at, n, answers):
        for start, entries in answers:
            pos = start
            for length, flags in zip(entries[::2], entries[1::2]):
                m = min(length, at + n - pos)
                if m > 0 and flags & nbd.STATE_ZERO:
                    bad = twin.model.says_zero(pos, m)
                    if bad is not None:
                        twin.wrong("block status says zero", bad)
                pos += length

    def batch(self, requests):
        todo, taken = [], []
        for q in requests:
            q = dict(q)
            q["at"] = min(q["at"], self.size - 1)
            q["n"] = min(q["n"], self.size - q["at"])
            if all(q["at"] >= e or q["at"] + q["n"] <= b for b, e in taken):
                taken.append((q["at"], q["at"] + q["n"]))
                todo.append(q)
        self.note("requests %s" % todo)
        for t in self.twins:
            sent = []
            for i, q in enumerate(todo):
                sent.append(self.send(t, t.handles[i % len(t.handles)], q))
            deadline = time.monotonic() + 60
            for i, (done, _) in enumerate(sent):
                h = t.handles[i % len(t.handles)]
                while not done:
                    if h.poll(1000) < 0 or time.monotonic() > deadline:
                        raise Wrong("%s: no answer to %s" % (t.dir, todo[i]))
            for _, finish in sent:
                finish()
        for q in todo:
            if q["kind"] == "zero-fast":
                # One twin may have refused it.
                for t in self.twins:
                    t.handles[0].zero(q["n"], q["at"])
                    t.model.zero(q["at"], q["n"])
        for q in todo:
            self.count += 1
            if q["kind"] in ("read", "status"):
                continue
            fate = {"write": self.DATA, "zero": self.ZERO,
                    "zero-nohole": self.UNKNOWN}.get(q["kind"], self.UNKNOWN)
            self.note_change(q["at"], q["n"], fate)

    # Acts of qemu-img, on both.

    def act(self, step):
        rng = random.Random(step["seed"])
        what = step["act"]
        for t in self.twins:
            t.stop()
        command = None
        if what.startswith("bitmap"):
            verb = what[7:]
            name = rng.choice(self.bitmaps) if self.bitmaps else None
            if verb == "add":
                if len(self.bitmaps) >= 3:
                    return
                name = "n%d" % rng.randrange(1000)
                more = ["-g", 1 << rng.choice([9, 12, 16, 20])]
                if rng.random() < 0.2:
                    more.append("--disable")
            elif verb == "merge":
                if len(self.bitmaps) < 2:
                    return
                more = [rng.choice(self.bitmaps)]
            else:
                more = []
            if name is None:
                return
            results = [t.qemu("qemu-img", "bitmap", "--" + verb, *more,
                              *t.spec(), name, ok=None)[0]
                       for t in self.twins]
            if results[0] == 0 and verb == "add" and name not in self.bitmaps:
                self.bitmaps.append(name)
            if results[0] == 0 and verb == "remove":
                self.bitmaps.remove(name)
        elif what.startswith("snapshot"):
            verb = what[9:]
            if verb == "create":
                if len(self.snapshots) >= 3:
                    return
                name, flag = "n%d" % rng.randrange(1000), "-c"
                if name in self.snapshots:
                    return
                self.settle_model()
            elif not self.snapshots:
                return
            else:
                name = rng.choice(sorted(self.snapshots))
                flag = {"apply": "-a", "delete": "-d"}[verb]
            if verb == "apply" and len(self.snapshots[name]) != self.size:
                return
            answers = [t.qemu("qemu-img", "snapshot", flag, name,
                              *self.snapshot_spec(t), ok=None)
                       for t in self.twins]
            results = [a[0] for a in answers]
            # A snapshot may be more than counts of few bits can hold, and one
            # twin alone have data, or compressed clusters that share a count.
            if verb == "create" and sorted(results) == [0, 1] \
               and self.f["options"].get("refcount_bits", 16) <= 4 \
               and "(Invalid argument)" in answers[results.index(1)][1]:
                t = self.twins[results.index(0)]
                t.qemu("qemu-img", "snapshot", "-d", name,
                       *self.snapshot_spec(t))
                results = [1, 1]
            if results[0] == 0 and verb == "create":
                self.snapshots[name] = bytes(self.twins[0].model.data)
            elif results[0] == 0 and verb == "delete":
                del self.snapshots[name]
            elif results[0] == 0:
                for t in self.twins:
                    t.model.write(0, self.snapshots[name])
                self.fate[:] = bytes([self.UNKNOWN]) * len(self.fate)
        elif what == "grow":
            size = self.size + 512 * rng.randint(
                1, 3 * self.f["cluster"] // 512)
            results = [t.qemu("qemu-img", "resize", *t.spec(), size,
                              ok=None)[0] for t in self.twins]
            if results[0] == 0:
                for t in self.twins:
                    old, t.model = t.model, Model(size, None)
                    t.model.data[:self.size] = old.data
                    t.model.maybe[:self.size] = old.maybe
                self.fate += bytes([self.UNKNOWN]) * ((size - self.size) // 512)
                last = self.size // self.f["cluster"] * self.f["cluster"]
                for s in range(last // 512, len(self.fate)):
                    self.fate[s] = self.UNKNOWN
                self.size = size
        elif what == "lazy":
            results = [t.qemu("qemu-img", "amend", "-o", "lazy_refcounts=%s"
                              % ("on" if step["seed"] & 1 else "off"),
                              *t.spec(), ok=None)[0] for t in self.twins]
        else:
            seed = rng.randrange(1 << 30)
            results = [self.scribble(t, 10, seed, self.size)
                       for t in self.twins]
            for t in self.twins:
                t.raw_is_disk = False
                blob = t.read_all(QEMU)
                t.model.write(0, blob)
            self.fate[:] = bytes([self.UNKNOWN]) * len(self.fate)
            # What trims had left open may make a difference.
            if self.twins[0].model.data != self.twins[1].model.data:
                self.settle_model()
            results = [0, 0]
        self.leaks |= results[0] != 0
        if results[0] != results[1]:
            raise Wrong("%s ends with %d and %d" % (step, *results))

    def settle_model(self):
        """Make the twins the same where trims have left them a choice."""
        a, b = (t.model.data for t in self.twins)
        if a == b:
            return
        for t in self.twins:
            t.start(QEMU)
            t.connect(1)
        for at in range(0, self.size, 512):
            if a[at:at + 512] != b[at:at + 512]:
                for t in self.twins:
                    t.handles[0].zero(512, at, flags=nbd.CMD_FLAG_NO_HOLE)
                    t.model.zero(at, 512)
                self.note_change(at, 512, self.UNKNOWN)
        for t in self.twins:
            t.stop()

    # Comparing.

    def compare(self, stop):
        self.compared += 1
        for t in self.twins:
            t.disconnect()
            if stop or t.server == QEMU:
                t.stop()
            else:
                # What is on disk is the last client's work, not the end of
                # the server's.
                t.kept, t.process = t.process, None
        self.compare_checks()
        self.compare_content()
        self.compare_maps()
        self.compare_bitmaps()
        for t in self.twins:
            kept = getattr(t, "kept", None)
            if kept:
                t.process, t.kept = kept, None
                t.stop()

    def compare_checks(self):
        for t in self.twins:
            code, out = t.qemu("qemu-img", "check", *t.spec(), ok=None)
            if code != 0 and (code != 3 or not self.leaks):
                raise Wrong("%s (written by %s): qemu-img check: %s"
                            % (t.dir, t.server, out))

    def compare_content(self):
        for t in self.twins:
            reader = QEMU if t.server == OURS else OURS
            blob = t.read_all(reader)
            if len(blob) != self.size:
                raise Wrong("%s: %s says %d bytes, not %d"
                            % (t.dir, reader, len(blob), self.size))
            t.check_read(0, blob, "read through %s" % reader)
            if self.f["kind"] == "raw" and t.raw_is_disk:
                with open(os.path.join(t.dir, "x.data"), "rb") as f:
                    raw = f.read().ljust(self.size, b"\0")[:self.size]
                if raw != blob:
                    bad = next(i for i in range(self.size)
                               if raw[i] != blob[i])
                    t.wrong("the data file", bad)
            for name, was in self.snapshots.items():
                if reader == OURS:
                    now = t.read_all(OURS, "qcow2ext-snapshot=" + name)
                else:
                    t.qemu("qemu-img", "convert", *t.spec(), "-O", "raw",
                           "-l", "snapshot.name=" + name, "snapshot.raw")
                    with open(os.path.join(t.dir, "snapshot.raw"), "rb") as f:
                        now = f.read()
                # QEMU shows a snapshot with the size that the disk has now.
                if now[:len(was)] != was:
                    raise Wrong("%s (written by %s): snapshot %s, read "
                                "through %s" % (t.dir, t.server, name, reader))

    def compare_maps(self):
        maps = [t.map() for t in self.twins]
        for s in range(self.size // 512):
            a, b = maps[0][s], maps[1][s]
            fate = self.fate[s]
            wrong = None
            if fate == self.UNTOUCHED and a != b:
                wrong = "was not touched"
            elif fate == self.DATA and (a != (False, True, 0) or a != b):
                wrong = "was written"
            elif fate == self.ZERO and not (a[0] and b[0]) \
                    and not self.f["v2"] and self.f["kind"] != "raw":
                wrong = "was zeroed"
            if wrong:
                raise Wrong("sector %#x (cluster %#x) %s, but the maps say "
                            "%s and %s (zero, data, depth)"
                            % (s, s * 512 // self.f["cluster"], wrong, a, b))

    def compare_bitmaps(self):
        for name in self.bitmaps:
            said = {}
            for t in self.twins:
                said["%s, says QEMU" % t.dir] = t.bitmap(name, QEMU)
                if t.server == QEMU:
                    said["%s, say we" % t.dir] = t.bitmap(name, OURS)
            if any(s != list(said.values())[0] for s in said.values()):
                raise Wrong("bitmap %s:\n%s" % (name, "\n".join(
                    "%s: %s" % (k, ["%#x-%#x" % tuple(r) for r in v])
                    for k, v in said.items())))

    # All of it.

    def serve(self):
        for t in self.twins:
            if t.process is None:
                t.start()
            if not t.handles:
                t.connect()

    def run(self):
        try:
            self.create()
            for step in self.steps:
                if "batch" in step:
                    self.serve()
                    self.batch(step["batch"])
                elif "flush" in step:
                    self.serve()
                    for t in self.twins:
                        t.handles[0].flush()
                elif "reconnect" in step:
                    for t in self.twins:
                        t.disconnect()
                elif "compare" in step:
                    self.compare(step["stop"])
                elif "swap" in step:
                    for t in self.twins:
                        t.stop()
                    a, b = self.twins
                    a.server, b.server = b.server, a.server
                else:
                    self.act(step)
            self.compare(True)
        finally:
            for t in self.twins:
                t.abandon()
                if getattr(t, "kept", None):
                    t.kept.kill()
                    t.kept.wait()


def run_history(seed, f, steps, a, keep):
    """(None or what is wrong, world)"""
    directory = tempfile.mkdtemp(prefix="q2t-", dir=a.dir)
    world = World(seed, f, steps, a, directory)
    wrong = None
    try:
        world.run()
    except Spoilt:
        world.spoilt = True
    except Wrong as e:
        wrong = str(e)
    except (nbd.Error, OSError, subprocess.SubprocessError) as e:
        wrong = "%s: %s\n%s" % (type(e).__name__, e, "".join(
            "%s:\n%s" % (t.dir, t.log()) for t in world.twins
            if os.path.exists(os.path.join(t.dir, "server.log"))))
    if wrong and keep:
        with open(os.path.join(directory, "history"), "w") as out:
            out.write("\n".join([json.dumps(f), *world.notes, wrong, ""]))
        print("kept: %s" % directory)
    else:
        shutil.rmtree(directory)
    return wrong, world


def shrink(seed, f, steps, a):
    """Leave out what is not needed to fail."""
    n = max(1, len(steps) // 2)
    while True:
        i, smaller = 0, False
        while i < len(steps):
            fewer = steps[:i] + steps[i + n:]
            if run_history(seed, f, fewer, a, False)[0]:
                steps, smaller = fewer, True
            else:
                i += n
        if n > 1:
            n //= 2
        elif not smaller:
            break
    for i in range(len(steps)):
        j = 0
        while "batch" in steps[i] and j < len(steps[i]["batch"]):
            rest = steps[i]["batch"][:j] + steps[i]["batch"][j + 1:]
            fewer = steps[:i] + [{"batch": rest}] + steps[i + 1:]
            if rest and run_history(seed, f, fewer, a, False)[0]:
                steps = fewer
            else:
                j += 1
    for name, nothing in (("scribbles", 0), ("bitmaps", []), ("snapshots", 0),
                          ("backing", None)):
        g = dict(f)
        g[name] = nothing
        if f[name] != nothing and run_history(seed, g, steps, a, False)[0]:
            f = g
    return f, steps


def one_history(seed, a):
    """(counts, what to print if it failed)"""
    f, steps = draw_history(seed, a)
    wrong, world = run_history(seed, f, steps, a, not a.shrink)
    text = wrong and "FAIL: seed %d: %s" % (seed, wrong)
    if wrong and a.shrink:
        f, steps = shrink(seed, f, steps, a)
        wrong = run_history(seed, f, steps, a, True)[0]
        text += "\nshrunk: %s\n%s\n%s" % (
            json.dumps(f), "\n".join(json.dumps(s) for s in steps), wrong)
    return {"done": 1, f["kind"]: 1, "requests": world.count,
            "compared": world.compared, "spoilt": int(world.spoilt),
            "failed": int(bool(text))}, text


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("filter", help="nbdkit-qcow2ext-filter.so")
    p.add_argument("--seed", type=int, help="the first one")
    p.add_argument("--seconds", type=int, default=60)
    p.add_argument("--histories", type=int, help="so many, however long")
    p.add_argument("--dir", help="where to work")
    p.add_argument("--jobs", type=int, default=1,
                   help="so many at a time")
    p.add_argument("--plain", action="store_true",
                   help="no encrypted image, and no parameter for our server")
    p.add_argument("--shrink", action="store_true")
    a = p.parse_args()
    a.filter = os.path.abspath(a.filter)
    if a.seed is None:
        a.seed = random.SystemRandom().randrange(10 ** 9)
    print("twins.py: seeds from %d" % a.seed, flush=True)

    begin = time.monotonic()
    sums = collections.Counter()
    seeds = itertools.count(a.seed)
    if a.histories:
        seeds = itertools.islice(seeds, a.histories)
    # A process each: libnbd's module does not give all memory back.
    with multiprocessing.Pool(a.jobs, maxtasksperchild=1) as pool:
        running = []
        while True:
            while len(running) < a.jobs and sums["failed"] < 5 and (
                    a.histories or time.monotonic() - begin < a.seconds):
                seed = next(seeds, None)
                if seed is None:
                    break
                running.append(pool.apply_async(one_history, (seed, a)))
            if not running:
                break
            running[0].wait(0.05)
            for r in [r for r in running if r.ready()]:
                running.remove(r)
                counts, text = r.get()
                sums.update(counts)
                if text:
                    print(text, flush=True)
    print("twins.py: %d histories (%d internal, %d pair, %d raw), %d requests "
          "to each twin, compared %d times, %d ended early because QEMU had "
          "damaged an image, %d failed, %d seconds"
          % (*[sums[k] for k in ("done", "internal", "pair", "raw", "requests",
                                 "compared", "spoilt", "failed")],
             time.monotonic() - begin))
    sys.exit(1 if sums["failed"] else 0)


if __name__ == "__main__":
    main()
