#!/usr/bin/python3
"""Compare servers of the same disk, in turns, on this machine.

For each workload, each round starts one server after the other on the same
files, puts the same load on each, and ends it.  What is compared is taken from
the same round.  See docs/performance.md.

An argument is a pattern of workloads' names, as the shell's patterns; without
one, all are run.  --list shows them.
"""

import argparse
import fnmatch
import html
import json
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

here = os.path.dirname(os.path.abspath(__file__))
env = os.environ

MiB = 1 << 20
GiB = 1 << 30
TiB = 1 << 40
CLUSTER = 65536
LAYERS = 100                    # of a long chain

# What, workloads, against whom, at least how many times as fast.  For each
# server the first that fits counts.
TARGETS = [
    ("pairs, allocated, 4 KiB", "*/pair*/*-4k-?c", "file", 1.0),
    ("pairs, allocated, 1 MiB", "*/pair*/*-1m-?c", "file", 0.97),
    ("internal images, allocated", "*/internal/*-?c", "file", 0.95),
    ("pairs, allocated, 4 KiB, one connection", "*/pair*/*-4k-1c",
     "qemu-nbd", 2.5),
    ("pairs, allocated, 4 KiB, four connections", "*/pair*/*-4k-4c",
     "qemu-nbd", 3.0),
    ("encrypted images, allocated, 4 KiB", "*/luks*/*-4k-?c", "qemu-nbd", 2.5),
    ("encrypted images, allocated, 1 MiB", "*/luks*/*-1m-?c", "qemu-nbd", 1.5),
    ("first touch, sequential", "*/first-seq-1m", "file", 0.9),
    ("first touch, random, pairs", "*/pair*/first-rand-4k", "qemu-nbd", 3.0),
    ("first touch, random, internal images", "*/internal/first-rand-4k",
     "qemu-nbd", 2.5),
    ("first touch, a flush every 16", "*/first-flush16-4k", "qemu-nbd", 1.3),
    ("nbdcopy of zlib", "zlib/copy", "qemu-nbd", 2.5),
    ("nbdcopy of zstd", "zstd/copy", "qemu-nbd", 2.0),
    ("nbdcopy into zlib", "zlib/into", "qemu-nbd", 1.1),
    ("nbdcopy into zstd", "zstd/into", "qemu-nbd", 1.2),
    ("nbdcopy into either", "z*/into", "qemu-img", 0.9),
    ("nbdcopy into either, a request at a time", "z*/into-one", "qemu-nbd",
     1.0),
    ("4 KiB reads of compressed images", "z*/seq-4k-*", "qemu-nbd", 8.0),
    ("1 MiB reads of zlib, one at a time", "zlib/*-1m-d1", "qemu-nbd", 3.0),
    ("1 MiB reads of zstd, one at a time", "zstd/*-1m-d1", "qemu-nbd", 2.0),
    ("nbdcopy of a pair", "pair/copy", "qemu-nbd", 1.2),
    ("fifty clients of one image", "*/storm-*", "qemu-nbd", 1.0),
    ("block status, cold", "map/*-cold", "qemu-nbd", 1.0),
    ("block status", "map/*", "qemu-nbd", 10.0),
    ("the first seconds", "open/*", "qemu-nbd", 1.0),
    ("far away, compressed", "far/z*-seq-1m", "qemu-nbd", 10.0),
    ("far away, plain and maps", "far/*-*m*", "qemu-nbd", 4.0),
    ("far away, at random", "far/*-rand", "qemu-nbd", 0.97),
    ("a long chain, 4 KiB", "chain-*/read-4k", "qemu-nbd", 4.0),
    ("a long chain, block status", "chain-*/map", "qemu-nbd", 1.0),
    ("past the page cache", "*/direct/*", "qemu-nbd", 1.0),
]

# The same for memory: at most so many KiB above nbdkit file.
MEMORY_TARGETS = [
    ("memory, the map of 1 TiB", "map/full-1t", 8 << 10),
    ("memory, all else", "*", 64 << 10),
]


def run(*argv, **kw):
    return subprocess.run([str(a) for a in argv], check=True,
                          stdin=subprocess.DEVNULL, **kw)


def output(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL).stdout.strip()
    except OSError:
        return ""


# ---------------------------------------------------------------------
# The machine.

def first_line(path, start):
    with open(path) as f:
        for line in f:
            if line.startswith(start):
                return line.split(":", 1)[1].strip()
    return "unknown"


def file_system(directory):
    return output("stat", "-f", "-c", "%T", directory).replace("ext2/ext3",
                                                                "ext4")


def machine(servers):
    m = {
        "processor": first_line("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory": "%d GiB" % round(int(first_line(
            "/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)),
        "machine": "virtual" if first_line("/proc/cpuinfo", "flags").count(
            "hypervisor") else "real",
        "kernel": platform.release(),
        "system": output("sh", "-c", '. /etc/os-release; echo "$PRETTY_NAME"'),
        "nbdkit": output("nbdkit", "--version").split()[-1],
        "qemu": output("qemu-nbd", "--version").split("\n")[0],
        "libnbd": output("nbdcopy", "--version").split("\n")[-1],
    }
    for name, cmd in servers.items():
        if name == "qcow2dec":
            argv = cmd.argv("", "")
            i = [os.path.basename(w) for w in argv].index("nbdkit") + 1
            m["qcow2dec"] = "of nbdkit " + output(*argv[:i],
                                                  "--version").split()[-1]
        elif name.startswith("qemu-nbd-"):
            m["qemu, another"] = name.split("-")[-1]
    m["disk"] = "%s on %s" % (file_system(opt.dir), output(
        "df", "--output=source", opt.dir).split("\n")[-1])
    return m


# ---------------------------------------------------------------------
# Servers.

class Server:
    def __init__(self, name, argv):
        self.name = name
        self.argv = argv        # takes the path of the socket and the image
        self.may_decrypt = name not in ("file", "qcow2dec")

    def serve(self, image, sock, cwd):
        return subprocess.Popen(self.argv(sock, image), cwd=cwd,
                                stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL)


def is_encrypted(image):
    return image.startswith("luks")


def is_compressing(image):
    return image.startswith("into")


# What images behind a server that is far away are called, and past the page
# cache.
FAR = "far:"
DIRECT = "direct:"
FAR_URI = "nbd+unix:///?socket=far"


def nbdkit(*what):
    def argv(sock, image):
        cmd = ["nbdkit", "-f", "-U", sock, *what]
        if image.startswith(FAR):
            return [*cmd, "-r", "nbd", "uri=" + FAR_URI]
        if image.startswith(DIRECT):
            return [*cmd, "file", image[len(DIRECT):], "qcow2ext-direct=true"]
        if is_encrypted(image):
            return [*cmd, "file", image, "qcow2ext-passphrase=+phrase"]
        if is_compressing(image):
            return [*cmd, "file", image, "qcow2ext-compress=true"]
        return [*cmd, "file", image]
    return argv


# How QEMU is told to open an encrypted image.
SECRET = ["--object", "secret,id=s,file=phrase"]
LUKS = "driver=qcow2,encrypt.key-secret=s,file.filename="

# And to compress what is written.
COMPRESS = "driver=compress,file.driver=qcow2,file.file.filename="


def qemu_nbd(cmd):
    # QEMU's default for aio, threads, is as fast here as io_uring; so is its
    # default for the cache, which is the page cache that nbdkit uses too.
    def argv(sock, image):
        start = [*cmd, "-t", "-k", sock, "-e", "64", "--aio=threads"]
        if image.startswith(FAR):
            return [*start, "-r", "-f", "qcow2", FAR_URI]
        if image.startswith(DIRECT):
            return [*start, "--cache=none", "-f", "qcow2",
                    image[len(DIRECT):]]
        start += ["--cache=writeback", "--discard=unmap"]
        if is_encrypted(image):
            return [*start, *SECRET, "--image-opts", LUKS + image]
        if is_compressing(image):
            return [*start, "--image-opts", COMPRESS + image]
        return [*start, "-f", "qcow2", image]
    return argv


def qcow2dec(cmd):
    # Options go behind the nbdkit in it.
    i = [os.path.basename(w) for w in cmd].index("nbdkit") + 1
    return lambda sock, image: [
        *cmd[:i], "-f", "-r", "-U", sock, *cmd[i:], image]


def find_servers():
    s = {"file": Server("file", nbdkit())}
    if shutil.which("qemu-nbd"):
        s["qemu-nbd"] = Server("qemu-nbd", qemu_nbd(["qemu-nbd"]))
    for word in opt.also_qemu:
        cmd = shlex.split(word)
        version = output(*cmd, "--version").split()[1]
        s["qemu-nbd-" + version] = Server("qemu-nbd-" + version,
                                          qemu_nbd(cmd))
    if opt.qcow2dec:
        s["qcow2dec"] = Server("qcow2dec",
                               qcow2dec(shlex.split(opt.qcow2dec)))
    elif subprocess.run(["nbdkit", "--filter=qcow2dec", "null", "--help"],
                        capture_output=True).returncode == 0:
        s["qcow2dec"] = Server(
            "qcow2dec", qcow2dec(["nbdkit", "--filter=qcow2dec", "file"]))
    if opt.before:
        s["before"] = Server("before", nbdkit(
            "--filter=" + os.path.abspath(opt.before)))
    s["qcow2ext"] = Server("qcow2ext", nbdkit("--filter=" + opt.filter))
    return s


def processor_time(pid):
    """Of all threads of a process, in seconds."""
    return time.clock_gettime((~pid << 3) | 2)


def peak_memory(pid):
    """In KiB."""
    return int(first_line("/proc/%d/status" % pid, "VmHWM").split()[0])


# ---------------------------------------------------------------------
# Files.

class Files:
    """A directory with what is served, made when it is first asked for."""

    def __init__(self, base):
        self.dir = tempfile.mkdtemp(prefix="q2x-bench-", dir=base)
        self.made = set()

    def once(self, what):
        if what in self.made:
            return False
        self.made.add(what)
        return True

    def path(self, name):
        return os.path.join(self.dir, name)

    def create(self, name, size, *options):
        args = []
        if options:
            args = ["-o", ",".join(options)]
        run("qemu-img", "create", "-q", "-f", "qcow2", *args, name, size,
            cwd=self.dir)

    def random(self):
        """Data that is nowhere zero."""
        if self.once("data.raw"):
            with open("/dev/urandom", "rb") as r, \
                 open(self.path("content"), "wb") as w:
                block = r.read(MiB)
                for i in range(opt.size // MiB):
                    w.write(block[i:] + block[:i])

    def allocated(self, kind):
        """An image of which each cluster is allocated.  All pairs have the
        same data file, which is also the raw file."""
        self.random()
        options = {
            "pair": ["data_file=data.raw"],
            "pair-raw": ["data_file=data.raw", "data_file_raw=on"],
            "pair-prealloc": ["data_file=data.raw", "preallocation=metadata"],
            "internal": [],
        }[kind]
        if self.once(kind):
            self.create(kind + ".qcow2", opt.size, *options)
            run("qemu-img", "convert", "-n", "-S", "0", "-f", "raw",
                "-O", "qcow2", "content", kind + ".qcow2", cwd=self.dir)
            if kind == "internal" and not os.path.exists(
                    self.path("data.raw")):
                shutil.copy(self.path("content"), self.path("data.raw"))
            os.sync()
        return kind + ".qcow2", "data.raw"

    def encrypted(self, kind):
        """Likewise, encrypted: with QEMU's default cipher, or another."""
        self.allocated("internal")
        if self.once(kind):
            with open(self.path("phrase"), "w") as f:
                f.write("phrase")
            options = "encrypt.format=luks,encrypt.key-secret=s," \
                "encrypt.iter-time=10"
            if kind == "luks-cbc":
                options += ",encrypt.cipher-mode=cbc," \
                    "encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256"
            run("qemu-img", "create", "-q", "-f", "qcow2", *SECRET,
                "-o", options, kind + ".qcow2", opt.size, cwd=self.dir)
            run("qemu-img", "convert", "-n", "-S", "0", *SECRET,
                "--image-opts", "--target-image-opts",
                "driver=raw,file.filename=content", LUKS + kind + ".qcow2",
                cwd=self.dir)
            os.sync()
        return kind + ".qcow2", "data.raw"

    def fresh(self, kind, size):
        """An image of which no cluster is allocated.  A raw pair has entries
        for all of them, but a data file without data."""
        for name in ("fresh.raw", "fresh.qcow2"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))
        if kind == "file":
            run("truncate", "-s", size, "fresh.raw", cwd=self.dir)
            return "fresh.raw"
        options = {"pair": ["data_file=fresh.raw"],
                   "pair-raw": ["data_file=fresh.raw", "data_file_raw=on"],
                   "internal": []}[kind]
        self.create("fresh.qcow2", size, *options)
        return "fresh.qcow2"

    def real(self):
        """What a system has: programs, libraries and text, in equal parts."""
        def files(*dirs):
            for d in dirs:
                for root, subdirs, names in os.walk(d):
                    subdirs.sort()
                    for name in sorted(names):
                        path = os.path.join(root, name)
                        if os.path.isfile(path) and not os.path.islink(path):
                            yield path

        def text(path):
            return path.endswith((".h", ".py", ".pm", ".pl", ".txt", ".sh",
                                  "copyright", ".xml", ".pod", ".html"))

        def library(path):
            return ".so" in os.path.basename(path)

        kinds = [
            (("/usr/bin", "/usr/sbin", "/usr/libexec"), lambda p: True),
            (("/usr/lib",), library),
            (("/usr/share", "/usr/include", "/usr/lib"), text),
        ]
        if not self.once("real"):
            return
        size = opt.compressed_size
        with open(self.path("real.raw"), "wb") as w:
            for n, (dirs, wanted) in enumerate(kinds):
                end = size * (n + 1) // len(kinds)
                for path in files(*dirs):
                    if w.tell() >= end:
                        break
                    if wanted(path):
                        with open(path, "rb") as r:
                            w.write(r.read())
                            w.write(bytes(-w.tell() % 512))
            # A small system has less.
            opt.compressed_size = min(size, w.tell()) // MiB * MiB
            w.truncate(opt.compressed_size)

    def compressed(self, kind):
        self.real()
        name = kind + ".qcow2"
        if self.once(kind):
            run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2",
                "-o", "compression_type=" + kind, "real.raw", name,
                cwd=self.dir)
            os.sync()
        return name, "real.raw"

    def content_ratio(self, name):
        return os.path.getsize(self.path("real.raw")) / os.path.getsize(
            self.path(name))

    def full_map(self):
        """1 TiB, each cluster allocated in the tables."""
        if self.once("full"):
            self.create("full.qcow2", "1T", "data_file=full.raw",
                        "data_file_raw=on")
        return "full.qcow2", "full.raw"

    def fragmented_map(self):
        """64 GiB, every eighth cluster with data."""
        if self.once("fragmented"):
            sys.path.insert(0, os.path.join(here, "..", "lib"))
            import mkimage
            img = mkimage.Image(64 * GiB, data_file="fragmented.raw")
            for gc in range(0, 64 * GiB // CLUSTER, 8):
                img.entry(gc, 1 << 63 | gc * CLUSTER)
            img.write(self.path("fragmented.qcow2"))
            with open(self.path("fragmented.raw"), "wb", buffering=0) as f:
                for at in range(0, 64 * GiB, 8 * CLUSTER):
                    f.seek(at)
                    f.write(b"x" * 4096)
                f.truncate(64 * GiB)
            os.sync()
        return "fragmented.qcow2", "fragmented.raw"

    def huge(self, kind):
        """64 TiB with one cluster."""
        name = "huge-%s.qcow2" % kind
        if self.once(name):
            options = []
            if kind == "pair":
                # Not as long as the disk: file systems do not have that.
                options = ["--data-file", "huge.raw",
                           "--data-file-out", self.path("huge.raw")]
                run(sys.executable, os.path.join(here, "../lib/mkimage.py"),
                    self.path("huge-small.qcow2"), "--data", "0=7", *options)
                options = options[:2]
            run(sys.executable, os.path.join(here, "../lib/mkimage.py"),
                self.path(name), "--size", "64T", "--data", "0=7", *options)
        return name, name

    def chain(self):
        """As many layers as few have, on one that is full."""
        self.allocated("internal")
        if self.once("chain"):
            below = "internal.qcow2"
            for i in range(1, LAYERS):
                name = "chain-%d.qcow2" % i
                self.create(name, opt.size, "backing_file=" + below,
                            "backing_fmt=qcow2")
                run("qemu-io", "-c", "write -q -P %d %d 64k" % (
                    i, i * opt.size // LAYERS & -CLUSTER), name, cwd=self.dir)
                below = name
        return "chain-%d.qcow2" % (LAYERS - 1), "data.raw"

    def map_far(self):
        """64 GiB, one cluster of each table allocated."""
        if self.once("far-map"):
            self.create("far-map.qcow2", "64G")
            run("qemu-io", *(w for i in range(128) for w in
                             ("-c", "write -q %dM 64k" % (i * 512))),
                "far-map.qcow2", cwd=self.dir)
        return "far-map.qcow2"

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


# ---------------------------------------------------------------------
# Workloads.

def end(process):
    """qemu-nbd can lose a signal that comes while it starts."""
    for _ in range(12):
        process.terminate()
        try:
            process.wait(timeout=5)
            return
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    process.wait()


class Workload:
    """unit is what a value is; for seconds, less is better."""
    unit = "requests/s"
    read_only_servers = False
    cached = False              # what is served is in the page cache
    write_small = False
    beside = []                 # what does the same and is no server

    def __init__(self, name, where):
        self.name = name
        self.where = where      # "disk" or "memory"

    def image(self, files, server):
        """Prepare what the server serves; returns its name."""
        raise NotImplementedError

    def measure(self, sock, pid):
        """Put the load on.  Returns value and processor seconds a request."""
        raise NotImplementedError

    def can(self, server):
        """Can this server do it at all?"""
        return True

    def cell(self, server, files):
        image = self.image(files, server)
        sock = os.path.join(files.dir, "sock")
        if os.path.exists(sock):
            os.unlink(sock)
        self.started = time.monotonic()
        process = server.serve(image, sock, files.dir)
        try:
            if self.cached and self.where == "disk":
                self.fill_cache(sock, process.pid, files, image)
            value, cpu = self.measure(sock, process.pid)
            return value, cpu * 1e6, peak_memory(process.pid)
        finally:
            end(process)

    def fill_cache(self, sock, pid, files, image):
        """Once the server has opened the files: it may drop what is cached of
        them then."""
        self.load(sock, pid, "--op=read", "--count=1")
        with open(files.path("data.raw" if image.startswith("pair")
                             else image), "rb+", buffering=0) as f:
            for at in range(0, os.fstat(f.fileno()).st_size, MiB):
                data = os.pread(f.fileno(), MiB, at)
                if self.write_small:
                    # The first change of a clean page costs the file system
                    # far more than the next ones: have them all changed.
                    os.pwrite(f.fileno(), data, at)

    def load(self, sock, pid, *args):
        return json.loads(run(opt.load, "--pid=%d" % pid, *args, sock,
                              stdout=subprocess.PIPE).stdout)


class Allocated(Workload):
    cached = True

    def __init__(self, where, kind, op, block, connections):
        super().__init__("%s/%s/%s-%s-%dc" % (
            where, kind, op, "4k" if block == 4096 else "1m", connections),
            where)
        self.kind = kind
        self.read_only_servers = kind == "internal" and op == "read"
        self.write_small = op == "write" and block == 4096 and where == "disk"
        # Sixteen requests at a time; of large ones, what a copy has.
        self.args = ["--op=" + op, "--block=%d" % block,
                     "--connections=%d" % connections,
                     "--depth=%d" % (16 if block == 4096 else 8),
                     "--order=" + ("random" if block == 4096
                                   else "sequential"),
                     "--warm=%g" % (opt.seconds / 5),
                     "--seconds=%g" % opt.seconds]

    def image(self, files, server):
        image, raw = files.encrypted(self.kind) \
            if is_encrypted(self.kind) else files.allocated(self.kind)
        return raw if server.name == "file" else image

    def can(self, server):
        return server.may_decrypt or server.name == "file" \
            or not is_encrypted(self.kind)

    def measure(self, sock, pid):
        r = self.load(sock, pid, *self.args)
        n = max(r["requests"], 1)
        return n / r["seconds"], r["server_cpu"] / n


class FirstTouch(Workload):
    def __init__(self, where, kind, what):
        super().__init__("%s/%s/first-%s" % (where, kind, what), where)
        self.kind = kind
        if what == "seq-1m":
            self.size = opt.size
            self.args = ["--order=sequential", "--block=%d" % MiB,
                         "--depth=8", "--count=%d" % (opt.size // MiB)]
        else:
            self.size = 4 * GiB
            count = opt.touches
            if "flush" in what and where == "disk":
                count //= 4
            self.args = ["--order=touch", "--block=4096", "--depth=16",
                         "--count=%d" % count]
            if "flush" in what:
                self.args += ["--flush-every=16"]

    def image(self, files, server):
        return files.fresh("file" if server.name == "file" else self.kind,
                           self.size)

    def measure(self, sock, pid):
        r = self.load(sock, pid, "--op=write", "--size=%d" % self.size,
                      *self.args)
        n = r["requests"]
        return n / r["seconds"], r["server_cpu"] / n


class Compressed(Workload):
    read_only_servers = True
    cached = True

    def __init__(self, kind, depth):
        super().__init__("%s/seq-4k-d%d" % (kind, depth), "disk")
        self.kind = kind
        self.args = ["--op=read", "--block=4096", "--depth=%d" % depth,
                     "--seconds=%g" % opt.seconds]

    def image(self, files, server):
        image, raw = files.compressed(self.kind)
        self.note = "compressed to 1/%.1f" % files.content_ratio(image)
        return raw if server.name == "file" else image

    measure = Allocated.measure


class Copy(Compressed):
    unit = "MiB/s"

    def __init__(self, kind):
        super().__init__(kind, 1)
        self.name = kind + "/copy"

    def measure(self, sock, pid):
        while not os.path.exists(sock):
            time.sleep(0.001)
        # A virtual machine gets memory when it first touches it: copy once, to
        # warm up.
        run("nbdcopy", "nbd+unix:///?socket=" + sock, "null:")
        cpu = processor_time(pid)
        start = time.monotonic()
        run("nbdcopy", "nbd+unix:///?socket=" + sock, "null:")
        end = time.monotonic()
        n = opt.compressed_size / MiB
        return n / (end - start), (processor_time(pid) - cpu) / n


class CopyPair(Copy):
    """A copy of a pair."""

    def __init__(self):
        super().__init__("pair")

    def image(self, files, server):
        image, raw = files.allocated("pair-raw")
        return raw if server.name == "file" else image

    def measure(self, sock, pid):
        rate, cpu = super().measure(sock, pid)
        # Of what is copied here.
        factor = opt.size / opt.compressed_size
        return rate * factor, cpu / factor


class Large(Compressed):
    """Large reads, one at a time."""

    def __init__(self, kind, order):
        super().__init__(kind, 1)
        self.name = "%s/%s-1m-d1" % (kind, order[:4].replace("sequ", "seq"))
        self.args = ["--op=read", "--block=%d" % MiB, "--depth=1",
                     "--order=" + order, "--seconds=%g" % opt.seconds]


class Storm(Compressed):
    """Fifty clients that read the same few MiB, as those of one golden image
    do."""

    def __init__(self, kind):
        super().__init__(kind, 1)
        self.name = kind + "/storm-64k-50c"
        self.args = ["--op=read", "--block=65536", "--depth=1",
                     "--order=random", "--size=%d" % (12 * MiB),
                     "--connections=50", "--seconds=%g" % opt.seconds]


class Far(Workload):
    """Over a server whose answers take 20 ms."""
    read_only_servers = True

    def __init__(self, kind):
        super().__init__("far/%s" % kind, "disk")
        self.kind = kind
        if kind == "map-64g":
            self.unit = "s"

    def can(self, server):
        return server.name not in ("file", "qcow2dec")

    def image(self, files, server):
        if self.kind == "map-64g":
            return files.map_far()
        if self.kind.startswith("plain"):
            return files.allocated("internal")[0]
        return files.compressed(self.kind.split("-")[0])[0]

    def cell(self, server, files):
        sock = files.path("far")
        if os.path.exists(sock):
            os.unlink(sock)
        far = subprocess.Popen(["nbdkit", "-f", "-r", "-U", sock,
                                "--filter=delay", "file",
                                self.image(files, server), "rdelay=20ms"],
                               cwd=files.dir, stdin=subprocess.DEVNULL)
        try:
            while not os.path.exists(sock):
                time.sleep(0.001)
            real, self.image = self.image, lambda *_: FAR
            return super().cell(server, files)
        finally:
            self.image = real
            end(far)

    def measure(self, sock, pid):
        if self.kind == "map-64g":
            r = self.load(sock, pid, "--op=map")
            return r["seconds"], r["server_cpu"]
        r = self.load(sock, pid, "--op=read", "--depth=1", *(
            ["--block=65536", "--order=random"] if self.kind.endswith("rand")
            else ["--block=%d" % MiB, "--order=sequential"]),
            "--seconds=%g" % opt.seconds)
        n = max(r["requests"], 1)
        return n / r["seconds"], r["server_cpu"] / n


class Chain(Allocated):
    read_only_servers = True

    def __init__(self):
        super().__init__("disk", "chain", "read", 4096, 1)
        self.name = "chain-%d/read-4k" % LAYERS

    def image(self, files, server):
        image, raw = files.chain()
        return raw if server.name == "file" else image

    def fill_cache(self, sock, pid, files, image):
        super().fill_cache(sock, pid, files,
                           "pair" if image == "data.raw" else "internal.qcow2")


class ChainMap(Chain):
    unit = "s"

    def __init__(self):
        super().__init__()
        self.name = "chain-%d/map" % LAYERS

    def measure(self, sock, pid):
        r = self.load(sock, pid, "--op=map")
        return r["seconds"], r["server_cpu"]


class Direct(Allocated):
    """Past the page cache."""
    cached = False

    def __init__(self, op, block):
        super().__init__("disk", "pair-raw", op, block, 1)
        self.name = self.name.replace("pair-raw/", "direct/")

    def can(self, server):
        return server.name in ("qcow2ext", "before", "qemu-nbd")

    def image(self, files, server):
        return DIRECT + super().image(files, server)


class CopyInto(Copy):
    """Into a fresh image, compressed by the server."""
    read_only_servers = False
    cached = False

    def __init__(self, kind, one_request):
        super().__init__(kind)
        self.name = kind + ("/into-one" if one_request else "/into")
        self.args = ["--connections=1", "--requests=1",
                     "--request-size=1048576"] if one_request else []
        self.beside = [] if one_request else [Server("qemu-img", None)]
        self.sizes = {}

    def can(self, server):
        return server.name not in ("file", "before")

    def image(self, files, server):
        self.target = files.path("into.qcow2")
        files.create("into.qcow2", opt.compressed_size,
                     "compression_type=" + self.kind)
        return "into.qcow2"

    def cell(self, server, files):
        self.raw_path = files.path(files.compressed(self.kind)[1])
        if server in self.beside:
            return self.convert(files)
        result = super().cell(server, files)
        self.sizes[server.name] = os.stat(self.target).st_size
        if "qemu-nbd" in self.sizes and "qcow2ext" in self.sizes:
            self.note = "%.3f of the size of qemu-nbd's" % (
                self.sizes["qcow2ext"] / self.sizes["qemu-nbd"])
        return result

    def convert(self, files):
        """The same without a server."""
        start = time.monotonic()
        process = subprocess.Popen(
            ["qemu-img", "convert", "-c", "-W", "-m", "16", "-f", "raw",
             "-O", "qcow2", "-o", "compression_type=" + self.kind,
             self.raw_path, files.path("into.qcow2")],
            stdin=subprocess.DEVNULL)
        status, used = os.wait4(process.pid, 0)[1:]
        end = time.monotonic()
        if status:
            raise OSError("qemu-img convert failed")
        n = opt.compressed_size / MiB
        return (n / (end - start), (used.ru_utime + used.ru_stime) * 1e6 / n,
                used.ru_maxrss)

    def measure(self, sock, pid):
        while not os.path.exists(sock):
            time.sleep(0.001)
        time.sleep(0.05)
        cpu = processor_time(pid)
        start = time.monotonic()
        run("nbdcopy", "--flush", *self.args, self.raw_path,
            "nbd+unix:///?socket=" + sock)
        end = time.monotonic()
        n = opt.compressed_size / MiB
        return n / (end - start), (processor_time(pid) - cpu) / n


class Map(Workload):
    unit = "s"
    cached = True

    def __init__(self, what):
        super().__init__("map/" + what, "disk")

    def image(self, files, server):
        image, raw = files.full_map() if "full-1t" in self.name \
            else files.fragmented_map()
        return raw if server.name == "file" else image

    def fill_cache(self, sock, pid, files, image):
        if image.endswith(".qcow2"):    # the other one is nothing but holes
            super().fill_cache(sock, pid, files, image)

    def measure(self, sock, pid):
        r = self.load(sock, pid, "--op=map")
        return r["seconds"], r["server_cpu"]


class ColdMap(Map):
    """What the page cache has of the image is dropped first."""
    cached = False

    def __init__(self, what):
        super().__init__(what)
        self.name += "-cold"

    def image(self, files, server):
        name = super().image(files, server)
        with open(files.path(name), "rb") as f:
            os.fdatasync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return name


class FirstWrite(FirstTouch):
    """From the server's start until the first write is flushed."""
    unit = "s"

    def __init__(self, kind):
        super().__init__("disk", kind, "flush16-4k")
        self.name = "open/%s-first-write" % kind

    def measure(self, sock, pid):
        self.load(sock, pid, "--op=write", "--count=1", "--block=4096",
                  "--size=65536", "--flush-every=1")
        return time.monotonic() - self.started, processor_time(pid)


class Open(Workload):
    unit = "s"

    def __init__(self, kind):
        super().__init__("open/%s-64t" % kind, "disk")
        self.kind = kind
        self.read_only_servers = kind == "internal"

    def image(self, files, server):
        return files.huge(self.kind)[0]

    def measure(self, sock, pid):
        r = self.load(sock, pid, "--op=read", "--count=1", "--size=65536")
        del r
        return time.monotonic() - self.started, processor_time(pid)


def all_workloads():
    w = []
    for where in ("disk", "memory"):
        kinds = ("pair", "pair-raw", "pair-prealloc", "internal")
        if where == "memory" or opt.quick:
            kinds = ("pair-raw", "internal")
        for kind in (*kinds, "luks", "luks-cbc"):
            for op in ("read", "write"):
                for block in (4096, MiB):
                    for connections in (1, 4):
                        w.append(Allocated(where, kind, op, block,
                                           connections))
        for kind in ("pair", "pair-raw", "internal"):
            for what in ("seq-1m", "rand-4k", "flush16-4k"):
                w.append(FirstTouch(where, kind, what))
    for kind in ("zlib", "zstd"):
        w += [Copy(kind), Compressed(kind, 1), Compressed(kind, 16),
              Large(kind, "sequential"), Large(kind, "random"), Storm(kind),
              CopyInto(kind, False), CopyInto(kind, True)]
    w += [CopyPair()]
    w += [Map("full-1t"), Map("fragmented-64g"), ColdMap("full-1t")]
    w += [Open("pair"), Open("internal"), FirstWrite("pair"),
          FirstWrite("internal")]
    w += [Far(what) for what in ("zlib-seq-1m", "zstd-seq-1m", "plain-seq-1m",
                                 "zlib-rand", "map-64g")]
    w += [Chain(), ChainMap()]
    w += [Direct(op, block) for op in ("read", "write")
          for block in (4096, MiB)]
    return w


# ---------------------------------------------------------------------
# Running.

def quartiles(values):
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def measure(workload, servers, files):
    cells = {}
    wanted = [s for s in servers.values()
              if (s.name != "qcow2dec" or workload.read_only_servers)
              and workload.can(s)] + workload.beside
    for n in range(opt.rounds):
        # Each has each neighbour now and then.
        k = n % len(wanted)
        for s in wanted[k:] + wanted[:k]:
            try:
                cell = workload.cell(s, files)
            except (OSError, subprocess.CalledProcessError) as e:
                failures.append("%s: %s: %s" % (workload.name, s.name, e))
                print(failures[-1], file=sys.stderr)
                continue
            cells.setdefault(s.name, []).append((n, *cell))
    result = {"name": workload.name, "unit": workload.unit, "servers": {},
              "ratios": {}, "targets": [],
              "run": {"rounds": opt.rounds, "seconds": opt.seconds,
                      "mib": opt.size >> 20, "touches": opt.touches}}
    if hasattr(workload, "note"):
        result["note"] = workload.note
    for name, rows in cells.items():
        q = quartiles([r[1] for r in rows])
        result["servers"][name] = {
            "median": q[1], "quartiles": [q[0], q[2]],
            "values": [r[1] for r in rows],
            "cpu_us": statistics.median(r[2] for r in rows),
            "memory_kib": max(r[3] for r in rows),
        }
    ours = {r[0]: r for r in cells.get("qcow2ext", [])}
    for name, rows in cells.items():
        if name == "qcow2ext":
            continue
        pairs = [(ours[r[0]], r) for r in rows if r[0] in ours]
        if not pairs:
            continue
        ratios = [b[1] / a[1] if workload.unit == "s" else a[1] / b[1]
                  for a, b in pairs]
        q = quartiles(ratios)
        result["ratios"][name] = {
            "median": q[1], "quartiles": [q[0], q[2]],
            "min": min(ratios), "max": max(ratios),
            "cpu": statistics.median(b[2] / a[2] if a[2] else 0
                                     for a, b in pairs),
        }
    add_targets(result)
    return result


def add_targets(result):
    result["targets"] = targets = []
    for what, pattern, against, least in TARGETS:
        ratio = result["ratios"].get(against)
        if ratio and fnmatch.fnmatch(result["name"], pattern) and \
           not any(t["against"] == against for t in targets):
            targets.append({"what": what, "against": against, "at_least": least,
                            "measured": ratio["median"],
                            "upper_quartile": ratio["quartiles"][1],
                            "met": ratio["median"] >= least})
    s = result["servers"]
    for what, pattern, most in MEMORY_TARGETS:
        if "file" in s and "qcow2ext" in s and \
           fnmatch.fnmatch(result["name"], pattern):
            over = s["qcow2ext"]["memory_kib"] - s["file"]["memory_kib"]
            targets.append({"what": what, "memory_kib_over_file": over,
                            "at_most": most, "met": over <= most})
            break


# ---------------------------------------------------------------------
# Instructions.

def self_cost(path):
    """The instructions in callgrind's file, but for those in nbdkit and its
    plugin.  Calls have costs of their own, which are inclusive."""
    total = 0
    names = {}
    ours = call = False
    with open(path) as f:
        for line in f:
            if line.startswith("ob="):
                # "ob=(3) /a/b" names an object, "ob=(3)" is the same again
                number, _, name = line[3:].strip().partition(" ")
                name = names.setdefault(number, os.path.basename(name))
                ours = name not in ("nbdkit", "nbdkit-file-plugin.so")
            elif line.startswith("cob="):
                number, _, name = line[4:].strip().partition(" ")
                names.setdefault(number, os.path.basename(name))
            elif line.startswith("calls="):
                call = True
            elif line[0] in "+-*0123456789":
                if ours and not call:
                    total += int(line.split()[1])
                call = False
    return total


def instructions(kind, op, files):
    """What the filter's callback and all that it calls take for 4 KiB of a
    cluster that is mapped, from callgrind: processor instructions outside of
    the kernel and of nbdkit.  What is done once falls out of the
    difference."""
    image = files.allocated(kind)[0]
    sock = os.path.join(files.dir, "sock")
    totals = []
    for count in (500, 1500):
        if os.path.exists(sock):
            os.unlink(sock)
        result = files.path("callgrind.out")
        with open(files.path("log"), "w") as log:
            process = subprocess.Popen(
                ["valgrind", "--tool=callgrind", "--collect-atstart=no",
                 "--toggle-collect=qcow2ext_p" + op,
                 "--callgrind-out-file=" + result, "nbdkit", "-f", "-U", sock,
                 "--filter=" + opt.filter, "file", image],
                cwd=files.dir, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log)
        try:
            run(opt.load, "--op=" + op, "--order=random", "--depth=1",
                "--count=%d" % count, sock, stdout=subprocess.DEVNULL)
        finally:
            end(process)
        totals.append(self_cost(result))
    if totals[0] == 0:
        sys.exit("callgrind saw nothing: has the filter symbols?")
    return (totals[1] - totals[0]) / 1000


def all_instructions():
    files = Files(opt.dir)
    result = {}
    with open(os.path.join(here, "instructions.json")) as f:
        known = json.load(f)
    try:
        for kind in ("pair", "pair-raw", "internal"):
            for op in ("read", "write"):
                n = instructions(kind, op, files)
                name = "%s/%s-4k" % (kind, op)
                result[name] = n
                print("%-18s %6.0f instructions a request; known: %.0f"
                      % (name, n, known[name]), flush=True)
    finally:
        files.remove()
    os.makedirs(opt.out, exist_ok=True)
    with open(os.path.join(opt.out, "instructions.json"), "w") as f:
        f.write(json.dumps(result, indent=1) + "\n")


# ---------------------------------------------------------------------
# Showing.

def human(value, unit):
    if unit == "s":
        return "%.1f ms" % (value * 1e3) if value < 10 else "%.1f s" % value
    return "%.0f" % value if value < 10000 else "%.1fk" % (value / 1e3)


def table(results, markdown=False):
    """One line for each workload and server."""
    head = ["workload", "server", "median", "quartiles", "CPU us",
            "memory MiB", "we / it", "quartiles", "CPU it / we", "target"]
    rows = []
    for r in results:
        label = r["name"]
        for name, s in r["servers"].items():
            ratio = r["ratios"].get(name)
            target = next((t for t in r["targets"]
                           if t.get("against") == name), None)
            memory = next((t for t in r["targets"] if "at_most" in t), None)
            say = ""
            if target:
                say = "%g %s" % (target["at_least"],
                                 "met" if target["met"] else "NOT met")
            elif name == "qcow2ext" and memory and not memory["met"]:
                say = "%d KiB over file NOT met" % \
                    memory["memory_kib_over_file"]
            rows.append([
                label, name, human(s["median"], r["unit"]),
                "-".join(human(v, r["unit"]) for v in s["quartiles"]),
                "%.1f" % s["cpu_us"], "%.1f" % (s["memory_kib"] / 1024),
                "%.2f" % ratio["median"] if ratio else "",
                "%.2f-%.2f" % tuple(ratio["quartiles"]) if ratio else "",
                "%.2f" % ratio["cpu"] if ratio else "", say])
            label = ""
    if markdown:
        return markdown_table(head, rows)
    width = [max(len(row[i]) for row in [head] + rows)
             for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) if i in (0, 1, 9) else c.rjust(w)
                               for i, (c, w) in enumerate(zip(row, width)))
                     .rstrip() for row in [head] + rows) + "\n"


def markdown_table(head, rows):
    return "\n".join(["| " + " | ".join(row) + " |" for row in
                      [head, ["---"] * len(head)] + rows]) + "\n"


def target_table(results):
    """One line for each target, over all workloads that it is for."""
    rows = []
    for what, pattern, limit in \
            [(t[0], t[2], t[3]) for t in TARGETS] + \
            [(t[0], None, t[2]) for t in MEMORY_TARGETS]:
        found = [(t, r["name"]) for r in results for t in r["targets"]
                 if t["what"] == what]
        if not found:
            continue
        if pattern:
            values = [t["measured"] for t, name in found]
            wanted = "%g of %s" % (limit, pattern)
            show = "%.2f"
        else:
            values = [t["memory_kib_over_file"] / 1024 for t, name in found]
            wanted = "at most %g MiB over nbdkit file" % (limit / 1024)
            show = "%.1f"
        missed = [name + ("~" if t.get("upper_quartile", 0) >= limit else "")
                  for t, name in found if not t["met"]]
        rows.append([
            what, wanted,
            " to ".join(dict.fromkeys(show % v for v in
                                      (min(values), max(values)))),
            "met" if not missed else "not met" if len(missed) == len(found)
            else "%d of %d met" % (len(found) - len(missed), len(found)),
            ", ".join(missed)])
    return markdown_table(["what", "target", "measured", "", "missed by"],
                          rows)


def markdown(report):
    m = report["machine"]
    return """# Results

Written by `make bench`; see performance.md for what it measures.

%s
%s
## Targets

Medians of the ratios within a round, the lowest and the highest of all
workloads that the target is for.  ~: the target is below the upper quartile,
so that this run does not settle it.

%s
## All figures

Rates are requests a second, for copies MiB a second.  "CPU us" is the server's
processor time for a request (for copies: for a MiB, for maps and opening: in
all).  "we / it" is how many times as fast qcow2ext is as this server.  "CPU it
/ we" is how many times the processor time this server takes.

%s""" % ("\n".join("- %s: %s" % (k, v) for k, v in m.items()) + "\n",
         "".join("- %s\n" % r for r in dict.fromkeys(
             "%(rounds)d rounds of %(seconds)g s, disks of %(mib)d MiB, "
             "%(touches)d first touches" % r["run"]
             for r in report["workloads"])) +
         "".join("- %s, %s\n" % (r["name"].split("/")[0], r["note"])
                 for r in report["workloads"]
                 if "note" in r and r["name"].endswith("/copy")),
         target_table(report["workloads"]),
         table(report["workloads"], True))


COLOURS = {"qcow2ext": "#1f5fa8", "qemu-nbd": "#c8702a", "file": "#777777",
           "qcow2dec": "#4c8c4a"}


def chart(report):
    """Bars, in two parts: against the raw file, and against qemu-nbd."""
    results = [r for r in report["workloads"]
               if not r["name"].startswith("memory/")
               and "/pair-prealloc/" not in r["name"]]
    parts = [
        ("Rate, as a share of nbdkit file's on the raw file (longer is "
         "better)", "file",
         [r for r in results if r["name"].startswith("disk/")]),
        ("How many times as fast as qemu-nbd (longer is better)", "qemu-nbd",
         [r for r in results if not r["name"].startswith("disk/")]),
    ]
    left, width, bar = 210, 560, 9
    body, y = [], 46

    def text(x, at, s, anchor="start", size=11, weight="normal"):
        body.append('<text x="%g" y="%g" font-size="%d" text-anchor="%s" '
                    'font-weight="%s">%s</text>' % (
                        x, at, size, anchor, weight, html.escape(s)))

    x = left
    shown = ["qcow2ext", "file", "qemu-nbd", "qcow2dec"]
    shown = [n for n in shown
             if any(n in r["servers"] for r in results)]
    for name in shown:
        body.append('<rect x="%d" y="12" width="12" height="12" fill="%s"/>'
                    % (x, COLOURS[name]))
        label = "nbdkit file, raw" if name == "file" else name
        text(x + 17, 22, label, size=12)
        x += 45 + 6 * len(label)
    for title, base, rows in parts:
        rows = [r for r in rows if base in r["servers"]]
        if not rows:
            continue
        text(12, y, title, size=13, weight="bold")
        y += 12

        def factor(r, name):
            rounds = zip(*(r["servers"][n]["values"] for n in (name, base)))
            return statistics.median(b / a if r["unit"] == "s" else a / b
                                     for a, b in rounds)

        top = y
        names = [n for n in shown if n != base and
                 (base == "file" or n != "file")]
        longest = max(factor(r, n) for r in rows for n in names
                      if n in r["servers"])
        step = next(s for s in (0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200,
                                500, 1e9) if longest / s <= 10)
        longest = step * (int(longest / step) + 1)
        for r in rows:
            y += 5
            text(left - 8, y + bar * len(names) / 2 + 4,
                 r["name"].replace("disk/", ""), "end")
            for name in names:
                if name in r["servers"]:
                    f = factor(r, name)
                    body.append(
                        '<rect x="%d" y="%g" width="%.1f" height="%d" '
                        'fill="%s"/>' % (left, y, width * f / longest,
                                         bar - 1, COLOURS[name]))
                    text(left + width * f / longest + 4, y + bar - 1,
                         "%.2f" % f if f < 10 else "%.0f" % f, size=9)
                y += bar
        lines = []
        for i in range(int(longest / step) + 1):
            at = left + width * i * step / longest
            lines.append('<line x1="%.1f" y1="%g" x2="%.1f" y2="%g" '
                         'stroke="%s"/>' % (
                             at, top, at, y + 4,
                             "#333333" if i * step == 1 else "#dddddd"))
            text(at, y + 16, "%g" % (i * step), "middle", 10)
        body[:0] = lines
        y += 44
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
            'font-family="sans-serif" fill="#222222">\n'
            '<rect width="100%%" height="100%%" fill="white"/>\n%s\n</svg>\n'
            % (left + width + 60, y - 10, "\n".join(body)))


def show(report):
    os.makedirs(opt.out, exist_ok=True)
    text = "\n".join("%-10s %s" % i for i in report["machine"].items())
    text += "\n\n" + table(report["workloads"])
    missed = [r["name"] + ": " + ", ".join(
        "%.2f of %s, wanted %g" % (t["measured"], t["against"], t["at_least"])
        if "against" in t else
        "%d KiB over file, wanted %d" % (t["memory_kib_over_file"],
                                         t["at_most"])
        for t in r["targets"] if not t["met"])
        for r in report["workloads"]
        if not all(t["met"] for t in r["targets"])]
    number = sum(len(r["targets"]) for r in report["workloads"])
    text += "\n%d targets.  Not met:\n%s\n" % (
        number, "\n".join("  " + m for m in missed) or "  none")
    for name, content in (
            ("bench.json", json.dumps(report, indent=1) + "\n"),
            ("bench.txt", text),
            ("bench.md", markdown(report)),
            ("bench.svg", chart(report))):
        with open(os.path.join(opt.out, name), "w") as f:
            f.write(content)
    return text


def parse():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("patterns", nargs="*")
    p.add_argument("--list", action="store_true", help="names of workloads")
    p.add_argument("--quick", action="store_true",
                   default=env.get("BENCH_QUICK", "") not in ("", "0"))
    p.add_argument("--rounds", type=int,
                   default=int(env.get("BENCH_ROUNDS") or 0))
    p.add_argument("--seconds", type=float, default=0,
                   help="of each measurement that is not a fixed amount")
    p.add_argument("--size", type=int, default=0,
                   help="MiB of allocated disks")
    p.add_argument("--dir", default=env.get("BENCH_DIR") or "/var/tmp",
                   help="on a real file system, with some GiB free")
    p.add_argument("--memory", default=env.get("BENCH_MEMORY") or "/dev/shm",
                   help="the same on a tmpfs")
    p.add_argument("--out", default=".", help="for bench.json and others")
    p.add_argument("--filter", default=env.get("QCOW2EXT"),
                   help="the filter; default $QCOW2EXT")
    p.add_argument("--before", default=env.get("BENCH_BEFORE"),
                   metavar="FILTER", help="another build, to compare with")
    p.add_argument("--only", default=env.get("BENCH_SERVERS"),
                   help="not all servers: file,qemu-nbd,...")
    p.add_argument("--load", default=env.get("BENCH_LOAD"),
                   help="the load generator; default $BENCH_LOAD")
    p.add_argument("--also-qemu", action="append", default=[],
                   metavar="COMMAND", help="another qemu-nbd to compare with")
    p.add_argument("--qcow2dec", metavar="COMMAND",
                   default=env.get("BENCH_QCOW2DEC"),
                   help="nbdkit --filter=qcow2dec file, if not the usual one")
    p.add_argument("--instructions", action="store_true",
                   help="count them, with callgrind, and nothing else")
    p.add_argument("--merge", nargs="+", metavar="JSON",
                   help="only put together what earlier runs found")
    o = p.parse_args()
    o.rounds = o.rounds or (3 if o.quick else 7)
    o.seconds = o.seconds or (0.2 if o.quick else 0.4)
    o.size = (o.size or (128 if o.quick else 384)) * MiB
    o.compressed_size = min(o.size, 256 * MiB)
    o.touches = 2048 if o.quick else 8192
    if o.size < 64 * MiB:
        o.touches = 256
    o.also_qemu += [c for c in [env.get("BENCH_ALSO_QEMU")] if c]
    if not o.patterns:
        o.patterns = (env.get("BENCH") or "*").split()
    return o


def main():
    if opt.merge:
        report = None
        for path in opt.merge:
            with open(path) as f:
                r = json.load(f)
            for w in r["workloads"]:
                w.setdefault("run", dict(r["settings"],
                                         mib=r["settings"]["size"] >> 20))
            if report is None:
                report = r
            else:
                names = [w["name"] for w in r["workloads"]]
                report["workloads"] = [
                    w for w in report["workloads"]
                    if w["name"] not in names] + r["workloads"]
        names = [w.name for w in all_workloads()]
        report["workloads"].sort(
            key=lambda w: names.index(w["name"]) if w["name"] in names else 0)
        for w in report["workloads"]:
            add_targets(w)
        print(show(report), end="")
        return

    workloads = [w for w in all_workloads()
                 if any(fnmatch.fnmatch(w.name, p) for p in opt.patterns)]
    if opt.list:
        print("\n".join(w.name for w in workloads))
        return
    if not workloads:
        sys.exit("no such workload: try --list")
    for what in ("filter", "load"):
        path = getattr(opt, what)
        if not path or not os.path.exists(path):
            sys.exit("--%s=%s: does not exist" % (what, path))
    opt.filter = os.path.abspath(opt.filter)
    opt.load = os.path.abspath(opt.load)
    if opt.instructions:
        all_instructions()
        return
    if file_system(opt.memory) != "tmpfs":
        workloads = [w for w in workloads if w.where != "memory"]
    servers = find_servers()
    if opt.only:
        servers = {n: s for n, s in servers.items()
                   if n in opt.only.split(",") + ["qcow2ext"]}
    report = {"machine": machine(servers),
              "settings": {"rounds": opt.rounds, "seconds": opt.seconds,
                           "size": opt.size, "touches": opt.touches},
              "workloads": []}
    files = {}
    began = time.monotonic()
    try:
        last = None
        for w in workloads:
            # What is in memory is room that others may need.
            group = w.where + w.name.split("/")[0]
            if group != last:
                for f in files.values():
                    f.remove()
                files = {}
            last = group
            if w.where not in files:
                files[w.where] = Files(opt.dir if w.where == "disk"
                                       else opt.memory)
            result = measure(w, servers, files[w.where])
            report["workloads"].append(result)
            print("%s: %s" % (w.name, ", ".join(
                "%.2f of %s" % (r["median"], n)
                for n, r in result["ratios"].items())), flush=True)
    finally:
        for f in files.values():
            f.remove()
        # Also of a run that was stopped.
        report["settings"]["took"] = round(time.monotonic() - began)
        print("\n" + show(report), end="")
    if failures:
        sys.exit("%d measurements failed" % len(failures))


# Stop servers and remove files then, too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
failures = []
opt = parse()
main()
