#!/usr/bin/python3
"""Make qcow2 images, sane ones and broken ones, for the tests.

As a command:  mkimage.py OUT --size 1M --data 0=1 --zero 3 --set l1_size=7
As a module:   img = mkimage.Image (size=...); img.data (0, seed=1);
               img.write ("disk.qcow2")

Everything is laid out in host clusters that are handed out one after the
other, references are counted on the way, and the reference count structures
and the "copied" flags are derived from the counts at the end.  So an image
without overrides passes "qemu-img check".  Overrides (--set, --l1, --l2,
--ext, --poke, --truncate) are applied last and are never corrected.

The content of a cluster is a function of a seed and of the guest offset:
16 byte records, "SSSS" + 12 hexadecimal digits of the record's guest offset.
It compresses well, and data from a wrong place cannot pass for the right one.
"""

import argparse
import os
import shutil
import struct
import subprocess
import sys
import zlib

MAGIC = 0x514649fb
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1

EXT_END = 0
EXT_BACKING_FORMAT = 0xe2792aca
EXT_FEATURE_NAMES = 0x6803f857
EXT_BITMAPS = 0x23852875
EXT_DATA_FILE = 0x44415441

INCOMPAT_DIRTY = 1
INCOMPAT_CORRUPT = 2
INCOMPAT_DATA_FILE = 4
INCOMPAT_COMPRESSION = 8
INCOMPAT_EXTL2 = 16
AUTOCLEAR_RAW = 2

# name -> (offset, size) in the header
FIELDS = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8),
    "backing_file_size": (16, 4), "cluster_bits": (20, 4), "size": (24, 8),
    "crypt_method": (32, 4), "l1_size": (36, 4), "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4),
    "nb_snapshots": (60, 4), "snapshots_offset": (64, 8),
    "incompatible_features": (72, 8), "compatible_features": (80, 8),
    "autoclear_features": (88, 8), "refcount_order": (96, 4),
    "header_length": (100, 4), "compression_type": (104, 1),
}


def content(seed, offset, length):
    """What the guest finds at OFFSET where a cluster has this seed."""
    if seed == 0:
        return bytes(length)
    first = offset // 16
    last = (offset + length + 15) // 16
    tag = b"%04x" % (seed & 0xffff)
    blob = b"".join(tag + b"%012x" % (i * 16) for i in range(first, last))
    skip = offset - first * 16
    return blob[skip:skip + length]


def deflate(data, final=True):
    """Raw deflate with QEMU's window, on request without a final block."""
    c = zlib.compressobj(6, zlib.DEFLATED, -12)
    out = c.compress(data)
    return out + c.flush(zlib.Z_FINISH if final else zlib.Z_SYNC_FLUSH)


def zstd(data):
    try:
        import zstandard
        return zstandard.ZstdCompressor().compress(data)
    except ImportError:
        pass
    if shutil.which("zstd") is None:
        sys.exit("mkimage: neither a zstandard module nor the zstd command")
    return subprocess.run(["zstd", "-q", "-c"], input=data, check=True,
                          stdout=subprocess.PIPE).stdout


def div_up(a, b):
    return (a + b - 1) // b


class Table:
    """Entries of one L1 table and all its L2 tables."""

    def __init__(self, size):
        self.size = size
        self.l2 = {}            # guest cluster -> Entry
        self.l1 = {}            # index -> raw value, given explicitly
        self.seeds = {}         # guest cluster -> reference content

    def copy(self):
        other = Table(self.size)
        other.l2 = dict(self.l2)
        other.l1 = dict(self.l1)
        other.seeds = dict(self.seeds)
        return other


class Entry:
    def __init__(self, value, bitmap=None, host=(), raw=False):
        self.value = value      # without the "copied" flag unless raw
        self.bitmap = bitmap
        self.host = tuple(host)  # host clusters it holds a reference to
        self.raw = raw          # written exactly as it is


class Image:
    def __init__(self, size, version=3, cluster_bits=16, refcount_order=4,
                 extended_l2=False, data_file=None, data_file_bit=None,
                 raw=False, backing=None, backing_format=None,
                 compression="zlib", header_length=None, incompatible=0,
                 compatible=0, autoclear=0, tables_first=False):
        self.version = version
        self.cluster_bits = cluster_bits
        self.cluster = 1 << cluster_bits
        self.refcount_order = refcount_order if version >= 3 else 4
        self.extended_l2 = extended_l2
        self.backing = backing.encode() if isinstance(backing, str) \
            else backing
        self.compression = compression
        self.has_data_file = data_file is not None \
            if data_file_bit is None else data_file_bit
        self.incompatible = incompatible
        self.compatible = compatible
        self.autoclear = autoclear
        if self.has_data_file:
            self.incompatible |= INCOMPAT_DATA_FILE
        if extended_l2:
            self.incompatible |= INCOMPAT_EXTL2
        if compression != "zlib":
            self.incompatible |= INCOMPAT_COMPRESSION
        if raw:
            self.autoclear |= AUTOCLEAR_RAW
        if header_length is None:
            header_length = 72 if version < 3 else 112
        self.header_length = header_length
        self.extensions = []    # (type, bytes, length field)
        if backing_format is not None:
            self.extension(EXT_BACKING_FORMAT, backing_format.encode())
        if data_file is not None:
            self.extension(EXT_DATA_FILE, data_file.encode()
                           if isinstance(data_file, str) else data_file)
        self.active = Table(size)
        self.snapshots = []     # (fields, Table or None)
        self.chunks = {}        # file offset -> bytes
        self.refs = {0: 1}      # host cluster -> references
        self.next = 1           # next free host cluster
        self.packed = None      # where the next compressed bytes may go
        self.late = []          # compressed clusters at the end of the file
        self.data_file_chunks = {}
        self.overrides = []
        self.file_end = None
        # Tables before data: what is cut off the file is data then.
        self.reserved = None
        if tables_first:
            self.reserved = (self.alloc_l1(size),
                             {i: self.alloc()
                              for i in range(self.l1_entries(size))})

    # Geometry.

    @property
    def l2_entry_size(self):
        return 16 if self.extended_l2 else 8

    @property
    def l2_entries(self):
        return self.cluster // self.l2_entry_size

    def l1_entries(self, size):
        return div_up(size, self.cluster * self.l2_entries)

    # The host clusters.

    def alloc(self, n=1):
        first = self.next
        self.next += n
        for c in range(first, first + n):
            self.refs[c] = self.refs.get(c, 0) + 1
        return first

    def alloc_l1(self, size):
        n = self.l1_entries(size)
        return self.alloc(max(1, div_up(n * 8, self.cluster)))

    def extension(self, kind, data, length=None):
        self.extensions.append((kind, data,
                                len(data) if length is None else length))

    def drop(self, gc):
        """Whatever the cluster had is referred to once less."""
        e = self.active.l2.pop(gc, None)
        if e is not None:
            for c in e.host:
                self.refs[c] -= 1

    # What the guest sees.

    def data(self, gc, seed=None, subclusters=0xffffffff, zero_bits=0,
             payload=None):
        """An allocated cluster."""
        self.drop(gc)
        if payload is None:
            payload = content(seed, gc * self.cluster, self.cluster)
        payload = payload.ljust(self.cluster, b"\0")
        if self.has_data_file:
            value = gc * self.cluster | COPIED
            self.data_file_chunks[gc * self.cluster] = payload
            host = ()
        else:
            c = self.alloc()
            self.chunks[c * self.cluster] = payload
            value, host = c * self.cluster, (c,)
        bitmap = subclusters | zero_bits << 32 if self.extended_l2 else None
        self.active.l2[gc] = Entry(value, bitmap, host)
        if self.extended_l2 and (subclusters != 0xffffffff or zero_bits):
            sub = self.cluster // 32
            payload = b"".join(payload[i * sub:(i + 1) * sub]
                               if subclusters >> i & 1 else bytes(sub)
                               for i in range(32))
        self.active.seeds[gc] = payload

    def zero(self, gc, allocated=False):
        """A cluster that reads as zeros, with or without space of its own."""
        if allocated:
            self.data(gc, 0xdead)
        else:
            self.drop(gc)
            self.active.l2[gc] = Entry(0, 0 if self.extended_l2 else None)
        e = self.active.l2[gc]
        if self.extended_l2:
            e.bitmap = 0xffffffff << 32
        else:
            e.value |= ZERO
        self.active.seeds[gc] = bytes(self.cluster)

    def entry(self, gc, value, bitmap=None, seed=None):
        """A raw L2 entry, and what the guest should find there."""
        self.drop(gc)
        if self.extended_l2 and bitmap is None:
            bitmap = 0xffffffff
        self.active.l2[gc] = Entry(value, bitmap, raw=True)
        if seed is not None:
            self.active.seeds[gc] = content(seed, gc * self.cluster,
                                            self.cluster)
        else:
            self.active.seeds.pop(gc, None)

    def descriptor(self, offset, sectors):
        shift = 62 - (self.cluster_bits - 8)
        if offset >> shift or sectors > 1 << self.cluster_bits - 8:
            raise ValueError("does not fit a compressed cluster descriptor")
        return COMPRESSED | sectors - 1 << shift | offset

    def compress(self, payload, final=True):
        if self.compression == "zlib":
            return deflate(payload, final)
        return zstd(payload)

    def compressed(self, gc, seed=None, final=True, blob=None, pack=True,
                   skip=0, sectors=None, more=0, last=False, payload=None):
        """A compressed cluster.

        pack: continue where the last one ended, maybe within a sector.
        skip: leave that many bytes free first (to reach a cluster's end).
        sectors: this many instead of the number it takes.
        more: this many more than it takes.
        last: at the very end of the file, which ends with the stream.
        blob: these bytes instead of a proper stream.
        final: False leaves the stream without a final block.  It ends where
          a sector ends then, as a decoder may take padding for a block.
        """
        self.drop(gc)
        if payload is None and seed is not None:
            payload = content(seed, gc * self.cluster, self.cluster)
        if blob is None:
            blob = self.compress(payload, final)
        if payload is not None:
            self.active.seeds[gc] = payload
        else:
            self.active.seeds.pop(gc, None)
        if last:
            if not final:
                raise ValueError("the end of the file is no sector's end")
            e = Entry(0, 0 if self.extended_l2 else None)
            self.active.l2[gc] = e
            self.late.append((e, blob, sectors, more))
            return
        if not pack or self.packed is None \
           or div_up(self.packed, self.cluster) != self.next:
            self.packed = self.next * self.cluster
        self.packed += skip
        if not final:
            self.packed += -(self.packed + len(blob)) % 512
        e = Entry(0, 0 if self.extended_l2 else None)
        self.place(e, blob, sectors, more)
        self.active.l2[gc] = e

    def place(self, e, blob, sectors, more):
        offset = self.packed
        n = div_up(offset % 512 + len(blob), 512)
        sectors = (sectors or n) + more
        end = offset // 512 * 512 + sectors * 512
        first, stop = offset // self.cluster, div_up(end, self.cluster)
        for c in range(first, stop):
            self.refs[c] = self.refs.get(c, 0) + 1
        self.next = max(self.next, stop)
        self.chunks[offset] = blob
        self.packed = offset + len(blob)
        e.value = self.descriptor(offset, sectors)
        e.host = tuple(range(first, stop))

    def snapshot(self, ident, name, size=None, extra=None, date=(0, 0),
                 clock=0, vm_state=0):
        """The disk as it is now becomes a snapshot; size can differ."""
        t = self.active.copy()
        if size is not None:
            t.size = size
            t.l2 = {gc: e for gc, e in t.l2.items()
                    if gc * self.cluster < size}
        for e in t.l2.values():
            for c in e.host:
                self.refs[c] += 1
        self.snapshots.append(({"id": ident, "name": name, "extra": extra,
                                "date": date, "clock": clock,
                                "vm_state": vm_state}, t))

    def reference(self, table=None):
        """The guest's whole disk, for images of a small size only."""
        t = table or self.active
        out = bytearray(t.size)
        for gc, payload in t.seeds.items():
            at = gc * self.cluster
            if at < t.size:
                n = min(self.cluster, t.size - at)
                out[at:at + n] = payload[:n]
        return bytes(out)

    # The file.

    def write(self, path):
        tables = [self.active] + [t for _, t in self.snapshots]
        layout = []
        for t in tables:
            n = self.l1_entries(t.size)
            if t is self.active and self.reserved:
                l1_at, l2s = self.reserved
                layout.append((t, n, l1_at * self.cluster, l2s))
                continue
            l1_at = self.alloc_l1(t.size)
            l2s = {}
            for gc in t.l2:
                if gc // self.l2_entries not in l2s:
                    l2s[gc // self.l2_entries] = None
            for i in sorted(l2s):
                l2s[i] = self.alloc()
            layout.append((t, n, l1_at * self.cluster, l2s))
        snapshots_at, snapshot_bytes = 0, self.snapshot_table(layout)
        if snapshot_bytes:
            snapshots_at = self.alloc(div_up(len(snapshot_bytes),
                                             self.cluster)) * self.cluster
            self.chunks[snapshots_at] = snapshot_bytes

        per_block = self.cluster * 8 >> self.refcount_order
        slack = sum(div_up(len(b), self.cluster) + 2 for _, b, *_ in self.late)
        blocks, tclusters = 1, 1
        while True:
            total = self.next + slack + blocks + tclusters
            b = div_up(total, per_block)
            t = div_up(b * 8, self.cluster)
            if (b, t) == (blocks, tclusters):
                break
            blocks, tclusters = max(b, blocks), max(t, tclusters)
        table_at = self.alloc(tclusters) * self.cluster
        block_at = self.alloc(blocks)

        for e, blob, sectors, more in self.late:
            self.packed = self.next * self.cluster \
                if e is self.late[0][0] else self.packed
            self.place(e, blob, sectors, more)
            self.file_end = self.packed

        self.chunks[table_at] = struct.pack(
            ">%dQ" % blocks,
            *((block_at + i) * self.cluster for i in range(blocks)))
        for i in range(blocks):
            counts = [self.refs.get(i * per_block + j, 0)
                      for j in range(per_block)]
            self.chunks[(block_at + i) * self.cluster] = self.pack(counts)
        for t, n, l1_at, l2s in layout:
            self.put_tables(t, n, l1_at, l2s, t is self.active)

        header = self.header(layout, table_at, tclusters, snapshots_at)
        self.chunks[0] = header
        with open(path, "wb") as f:
            for at, blob in sorted(self.chunks.items()):
                f.seek(at)
                f.write(blob)
            if self.file_end is None:
                f.truncate(self.next * self.cluster)
            else:
                f.truncate(self.file_end)

    def pack(self, counts):
        bits = 1 << self.refcount_order
        if max(counts) >= 1 << bits:
            raise ValueError("reference count does not fit")
        if bits >= 8:
            code = {8: "B", 16: "H", 32: "I", 64: "Q"}[bits]
            return struct.pack(">%d%s" % (len(counts), code), *counts)
        per_byte = 8 // bits
        return bytes(sum(counts[i + j] << j * bits for j in range(per_byte))
                     for i in range(0, len(counts), per_byte))

    def put_tables(self, t, n, l1_at, l2s, active):
        l1 = [0] * n
        for i, c in l2s.items():
            if i < n:
                l1[i] = c * self.cluster | (COPIED if active else 0)
            table = bytearray(self.cluster)
            for j in range(self.l2_entries):
                e = t.l2.get(i * self.l2_entries + j)
                if e is None:
                    continue
                v = e.value
                if not e.raw and active and not v & COMPRESSED \
                   and e.host and all(self.refs[h] == 1 for h in e.host):
                    v |= COPIED
                struct.pack_into(">Q", table, j * self.l2_entry_size, v)
                if self.extended_l2:
                    struct.pack_into(">Q", table, j * 16 + 8, e.bitmap)
            self.chunks[c * self.cluster] = bytes(table)
        for i, v in t.l1.items():
            l1[i] = v
        self.chunks[l1_at] = struct.pack(">%dQ" % n, *l1)

    def snapshot_table(self, layout):
        out = b""
        for (f, t), (_, n, l1_at, _) in zip(self.snapshots, layout[1:]):
            extra = f["extra"]
            if extra is None:
                extra = struct.pack(">QQQ", f["vm_state"], t.size,
                                    0xffffffffffffffff)
            ident, name = f["id"].encode(), f["name"].encode()
            out += struct.pack(">QIHHIIQII", l1_at, n, len(ident), len(name),
                               f["date"][0], f["date"][1], f["clock"],
                               f["vm_state"], len(extra))
            out += extra + ident + name
            out += bytes(-len(out) % 8)
        return out

    def header(self, layout, table_at, tclusters, snapshots_at):
        _, n, l1_at, _ = layout[0]
        h = bytearray(self.header_length)

        def put(name, value):
            at, size = FIELDS[name]
            if at + size > len(h):
                if self.version >= 3 and value:
                    h.extend(bytes(at + size - len(h)))
                else:
                    return
            h[at:at + size] = value.to_bytes(size, "big")

        put("magic", MAGIC)
        put("version", self.version)
        put("cluster_bits", self.cluster_bits)
        put("size", self.active.size)
        put("l1_size", n)
        put("l1_table_offset", l1_at)
        put("refcount_table_offset", table_at)
        put("refcount_table_clusters", tclusters)
        put("nb_snapshots", len(self.snapshots))
        put("snapshots_offset", snapshots_at)
        if self.version >= 3:
            put("incompatible_features", self.incompatible)
            put("compatible_features", self.compatible)
            put("autoclear_features", self.autoclear)
            put("refcount_order", self.refcount_order)
            put("header_length", self.header_length)
            put("compression_type", 0 if self.compression == "zlib" else 1)
        exts = b""
        for kind, data, length in self.extensions:
            exts += struct.pack(">II", kind, length) + data
            exts += bytes(-len(data) % 8)
        if exts or self.header_length + 8 <= self.cluster:
            exts += struct.pack(">II", EXT_END, 0)
        if self.backing is not None:
            put("backing_file_offset", len(h) + len(exts))
            put("backing_file_size", len(self.backing))
            exts += self.backing
        for name, value in self.overrides:
            if name in FIELDS:
                at, size = FIELDS[name]
            else:
                raise ValueError("no header field " + name)
            if at + size > len(h):
                raise ValueError("header is too short for " + name)
            value &= (1 << 8 * size) - 1
            h[at:at + size] = value.to_bytes(size, "big")
        if len(h) + len(exts) > self.cluster:
            raise ValueError("header and extensions exceed a cluster")
        return bytes(h) + exts

    def write_data_file(self, path, size=None):
        """What the entries made by data() expect in the data file."""
        with open(path, "wb") as f:
            for at, blob in sorted(self.data_file_chunks.items()):
                f.seek(at)
                f.write(blob)
            f.truncate(self.active.size if size is None else size)


def number(s):
    s = s.strip()
    if s[-1:].upper() in "KMGT" and s[:2].lower() != "0x":
        return int(s[:-1]) << "KMGT".index(s[-1].upper()) * 10 + 10
    return int(s, 0)


def clusters(s):
    """"5" or "5-8"."""
    first, _, last = s.partition("-")
    return range(int(first, 0), int(last or first, 0) + 1)


class Step(argparse.Action):
    """Options that describe clusters act in the order they are given."""

    def __call__(self, parser, ns, value, option=None):
        ns.steps = getattr(ns, "steps", None) or []
        ns.steps.append((option.lstrip("-"), value))


def main(argv):
    p = argparse.ArgumentParser(description="make a qcow2 image")
    p.add_argument("out")
    p.add_argument("--size", default="1M", help="virtual size")
    p.add_argument("--version", type=int, default=3)
    p.add_argument("--cluster-bits", type=int, default=16)
    p.add_argument("--refcount-order", type=int, default=4)
    p.add_argument("--extended-l2", action="store_true")
    p.add_argument("--data-file", help="name in the header extension")
    p.add_argument("--data-file-bit", choices=["on", "off"])
    p.add_argument("--tables-first", action="store_true",
                   help="L1 and L2 tables before the data")
    p.add_argument("--raw", action="store_true",
                   help="autoclear bit: the data file is raw")
    p.add_argument("--backing")
    p.add_argument("--backing-format")
    p.add_argument("--compression", choices=["zlib", "zstd"], default="zlib")
    p.add_argument("--header-length", type=number)
    p.add_argument("--incompatible", type=number, default=0)
    p.add_argument("--compatible", type=number, default=0)
    p.add_argument("--autoclear", type=number, default=0)
    for option, meta, text in (
            ("--data", "GC[-GC]=SEED", "allocated clusters"),
            ("--subclusters", "GC=SEED:ALLOC[:ZERO]",
             "allocated cluster with these subcluster bitmaps"),
            ("--zero", "GC[-GC]", "zero clusters without space"),
            ("--zero-alloc", "GC[-GC]", "zero clusters with space"),
            ("--compress", "GC[-GC]=SEED[,nofinal][,nopack][,last]"
             "[,skip:N][,sectors:N][,more:N]", "compressed clusters"),
            ("--compress-blob", "GC=HEX[,sectors:N]",
             "a compressed cluster with these bytes"),
            ("--l2", "GC=VALUE[:BITMAP][,SEED]", "raw L2 entry"),
            ("--l1", "INDEX=VALUE", "raw L1 entry"),
            ("--snapshot", "ID:NAME[:SIZE]", "snapshot of the disk so far")):
        p.add_argument(option, metavar=meta, help=text, action=Step)
    p.add_argument("--ext", metavar="TYPE=HEX[:LENGTH]", action="append",
                   default=[], help="raw header extension")
    p.add_argument("--set", metavar="FIELD=VALUE", action="append",
                   default=[], help="override a header field")
    p.add_argument("--truncate", type=number,
                   help="cut the file (negative: that much off its end)")
    p.add_argument("--poke", metavar="OFFSET=HEX", action="append",
                   default=[])
    p.add_argument("--reference", metavar="FILE",
                   help="write the guest's disk there")
    p.add_argument("--data-file-out", metavar="FILE",
                   help="write the data file there")
    a = p.parse_args(argv)

    img = Image(number(a.size), a.version, a.cluster_bits, a.refcount_order,
                a.extended_l2, a.data_file,
                None if a.data_file_bit is None else a.data_file_bit == "on",
                a.raw, a.backing, a.backing_format, a.compression,
                a.header_length, a.incompatible, a.compatible, a.autoclear,
                a.tables_first)
    for e in a.ext:
        kind, _, rest = e.partition("=")
        data, _, length = rest.partition(":")
        img.extension(number(kind), bytes.fromhex(data),
                      number(length) if length else None)
    for option, value in getattr(a, "steps", None) or []:
        where, _, rest = value.partition("=")
        words = rest.split(",")
        flags = dict(w.partition(":")[::2] for w in words[1:])
        if option == "data":
            for gc in clusters(where):
                img.data(gc, number(rest))
        elif option == "subclusters":
            n = [number(x) for x in rest.split(":")]
            img.data(number(where), n[0], n[1], n[2] if len(n) > 2 else 0)
        elif option in ("zero", "zero-alloc"):
            for gc in clusters(value):
                img.zero(gc, option == "zero-alloc")
        elif option == "compress":
            for gc in clusters(where):
                img.compressed(gc, number(words[0]),
                               final="nofinal" not in flags,
                               pack="nopack" not in flags,
                               last="last" in flags,
                               skip=number(flags.get("skip", "0")),
                               sectors=number(flags.get("sectors", "0")),
                               more=number(flags.get("more", "0")))
        elif option == "compress-blob":
            img.compressed(number(where), blob=bytes.fromhex(words[0]),
                           sectors=number(flags.get("sectors", "0")))
        elif option == "l2":
            v, _, bitmap = words[0].partition(":")
            img.entry(number(where), number(v),
                      number(bitmap) if bitmap else None,
                      number(words[1]) if len(words) > 1 else None)
        elif option == "l1":
            img.active.l1[number(where)] = number(rest)
        elif option == "snapshot":
            ident, name, *size = value.split(":")
            img.snapshot(ident, name, number(size[0]) if size else None)
    for s in a.set:
        name, _, value = s.partition("=")
        img.overrides.append((name, number(value)))
    img.write(a.out)
    if a.data_file_out:
        img.write_data_file(a.data_file_out)
    if a.reference:
        with open(a.reference, "wb") as f:
            f.write(img.reference())
    with open(a.out, "r+b") as f:
        for poke in a.poke:
            at, _, blob = poke.partition("=")
            f.seek(number(at))
            f.write(bytes.fromhex(blob))
        if a.truncate is not None:
            n = a.truncate
            f.truncate(n if n >= 0 else os.fstat(f.fileno()).st_size + n)


if __name__ == "__main__":
    main(sys.argv[1:])
