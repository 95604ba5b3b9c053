#!/usr/bin/env bash
# An entry that points at metadata must not lead to its being overwritten or
# freed: the first change that meets it makes the image refuse all further
# writes and, if it has a place for that, marks it corrupt.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires_nbd_module
cd "$tmp"

cat > over.py <<'END'
import nbd, struct, sys
sys.path.insert (0, sys.argv[2])
import mkimage

CLUSTER = 4096
GC = 20                         # the guest cluster whose entry is bad
OFFSET = 0x00fffffffffffe00

def get (blob, offset, code):
    return struct.unpack_from (">" + code, blob, offset)[0]

def make (version):
    img = mkimage.Image (8 << 20, version=version, cluster_bits=12)
    for gc in list (range (16)) + list (range (512, 516)):
        img.data (gc, 7)
    img.snapshot ("1", "one")
    img.data (3, 8)
    img.write ("base.qcow2")
    return bytearray (open ("base.qcow2", "rb").read ())

class Layout:
    def __init__ (self, blob):
        self.l1 = get (blob, 40, "Q")
        self.l2, self.other_l2 = [get (blob, self.l1 + i * 8, "Q") & OFFSET
                                  for i in (0, 1)]
        self.refcount_table = get (blob, 48, "Q")
        self.refblock = get (blob, self.refcount_table, "Q")
        self.snapshots = get (blob, 64, "Q")
        self.snapshot_l1 = get (blob, self.snapshots, "Q")
        self.snapshot_l2 = get (blob, self.snapshot_l1, "Q") & OFFSET
        self.header = 0
        self.entry = self.l2 + GC * 8

    def counts (self, blob):
        return {name: get (blob, self.refblock + at // CLUSTER * 2, "H")
                for name, at in vars (self).items () if name != "entry"}

    # Everything but what may change: the entry itself, other counts, and
    # the bit that says that the image is corrupt.
    def metadata (self, blob):
        seen = {}
        for name, at in vars (self).items ():
            if name not in ("entry", "refblock"):
                piece = bytearray (blob[at:at + CLUSTER])
                if name == "header":
                    piece[72:80] = bytes (8)
                if name == "l2":
                    piece[GC * 8:GC * 8 + 8] = bytes (8)
                seen[name] = bytes (piece)
        return seen

def attempt (function, *args):
    try:
        function (*args)
        return None
    except nbd.Error as e:
        return e.errno

def bad (blob, lay, target, kind):
    at = getattr (lay, target)
    blob = bytearray (blob)
    if kind == "compressed":
        value = 1 << 62 | at + 512
    else:
        value = at | (1 << 63 if kind == "copied" else 0)
    struct.pack_into (">Q", blob, lay.entry, value)
    return blob

def case (blob, lay, target, kind, op, version):
    what = "v%d, %s by %s entry at %s" % (version, op, kind, target)
    before = bad (blob, lay, target, kind)
    with open ("x.qcow2", "wb") as f:
        f.write (before)

    h = nbd.NBD ()
    h.connect_systemd_socket_activation (["nbdkit", "--filter=" + sys.argv[1],
                                          "file", "x.qcow2"])
    if op == "trim":
        attempt (h.trim, CLUSTER, GC * CLUSTER)
    elif op == "zero":
        attempt (h.zero, CLUSTER, GC * CLUSTER)
    elif op == "allocate":
        attempt (h.zero, CLUSTER, GC * CLUSTER, nbd.CMD_FLAG_NO_HOLE)
    elif op == "write":
        attempt (h.pwrite, b"A" * CLUSTER, GC * CLUSTER)
    else:
        attempt (h.pwrite, b"A" * 100, GC * CLUSTER + 700)
    # What is freed is released some commits later, and then taken for data.
    last = None
    for i in range (4):
        attempt (h.flush)
        last = attempt (h.pwrite, b"B" * CLUSTER, (100 + i) * CLUSTER)
    attempt (h.flush)
    # The rest can still be read.
    for gc, seed in ((0, 7), (3, 8), (515, 7)):
        want = mkimage.content (seed, gc * CLUSTER, CLUSTER)
        assert h.pread (CLUSTER, gc * CLUSTER) == want, what
    h.shutdown ()

    after = open ("x.qcow2", "rb").read ()
    now, then = lay.metadata (after), lay.metadata (before)
    refused = last is not None
    if refused:
        for name in then:
            assert now[name] == then[name], "%s: %s changed" % (what, name)
    else:
        for name in ("header", "refcount_table", "snapshots", "snapshot_l1",
                     "snapshot_l2", "other_l2"):
            assert now[name] == then[name], "%s: %s changed" % (what, name)
    for name, count in lay.counts (after).items ():
        assert count >= 1, "%s: %s was freed" % (what, name)
    # Zeroes that keep their space, and a part of what cannot be read, need
    # not free or write to anything.
    if op in ("trim", "zero", "write"):
        assert refused, what + ": not refused"
        if version >= 3:
            assert get (after, 72, "Q") & 2, what + ": not marked"
    assert last in (None, "EIO", "EROFS"), (what, last)

targets = ("l1", "l2", "other_l2", "refcount_table", "refblock", "snapshots",
           "snapshot_l1", "snapshot_l2")
failed = 0
for version in (3, 2):
    blob = make (version)
    lay = Layout (blob)
    for target in targets + ("header",):
        for kind in ("copied", "shared", "compressed"):
            if target == "header" and kind != "compressed":
                continue        # an offset of 0 means none
            for op in ("trim", "zero", "allocate", "write", "partial"):
                if version == 2 and target not in ("l1", "snapshot_l2"):
                    continue
                try:
                    case (blob, lay, target, kind, op, version)
                except AssertionError as e:
                    print (e)
                    failed += 1
sys.exit ("%d cases failed" % failed if failed else 0)
END

timeout 120 "$PYTHON" over.py "$qcow2ext" "$lib"
