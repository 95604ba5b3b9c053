#!/usr/bin/python3
"""Stress an NBD export with overlapping requests and compare with a model.

    stress.py URI --seed 1 --ops 2000 --model-in before.raw --model-out now.raw

Several connections keep several requests each in flight, all without
synchronisation: reads, writes (also of zeros, also FUA), zeroes of every kind,
trims, flushes, cache requests and block status.  Requests in flight at the same
time never touch the same byte, but they share sectors and clusters all the
time: the disk is cut into pieces of odd lengths, and each of the slots that
send requests owns every so-and-so-many-th piece.  Now and then everybody waits
and the disk is cut anew, so that everyone gets to read what others wrote.

The model has each byte of the disk.  After a trim a byte may be what it was
or zero, until it has been read or block status has said zero; from then on
it is fixed.  Block status must never say zero where the model has something
else.  At the end all connections are closed, and over a new one the whole
disk and its whole map are compared.

What slots do depends only on the seed; in which order requests are done
depends on the server.
"""

import argparse
import random
import select
import sys
import time

import nbd

BLOCK = 512
HANG = 60                       # seconds without any answer


def pattern(op, offset, length):
    """Printable, and tells which request wrote it, and where."""
    first = offset // BLOCK
    last = (offset + length + BLOCK - 1) // BLOCK
    blob = b"".join((b"%07d@%07x\n" % (op % 10 ** 7, block))
                    * (BLOCK // 16) for block in range(first, last))
    skip = offset - first * BLOCK
    return blob[skip:skip + length]


class Wrong(Exception):
    pass


class Model:
    def __init__(self, size, initial):
        self.data = bytearray(size)
        # 1 where the byte may be zero as well.
        self.maybe = bytearray(size)
        if initial is not None:
            with open(initial, "rb") as f:
                blob = f.read(size)
            self.data[:len(blob)] = blob

    def write(self, offset, blob):
        self.data[offset:offset + len(blob)] = blob
        self.maybe[offset:offset + len(blob)] = bytes(len(blob))

    def zero(self, offset, length):
        self.write(offset, bytes(length))

    def trim(self, offset, length):
        self.maybe[offset:offset + length] = b"\1" * length

    def read(self, offset, blob):
        """The disk says BLOB.  The first offset that is wrong, or None."""
        end = offset + len(blob)
        if self.data[offset:end] == blob:
            self.maybe[offset:end] = bytes(len(blob))
            return None
        for a in range(0, len(blob), BLOCK):
            part = blob[a:a + BLOCK]
            at = offset + a
            if self.data[at:at + len(part)] == part:
                continue
            for i, byte in enumerate(part):
                if byte == self.data[at + i]:
                    continue
                if byte != 0 or not self.maybe[at + i]:
                    return at + i
                self.data[at + i] = 0
        self.maybe[offset:end] = bytes(len(blob))
        return None

    def says_zero(self, offset, length):
        """Block status says zero.  The first offset that is not, or None."""
        end = offset + length
        if self.data.count(0, offset, end) == length:
            self.maybe[offset:end] = bytes(length)
            return None
        return self.read(offset, bytes(length))


class Slot:
    """Sends one request at a time, within pieces that are its own."""

    def __init__(self, number, seed):
        self.number = number
        self.rng = random.Random("%d/%d" % (seed, number))
        self.pieces = []
        self.op = None


class Op:
    def __init__(self, number, conn, slot, kind, offset, length):
        self.number = number
        self.conn = conn
        self.slot = slot
        self.kind = kind
        self.offset = offset
        self.length = length
        self.started = time.monotonic()
        self.ended = None
        self.blob = None
        self.buffer = None
        self.extents = []
        self.note = ""

    def __str__(self):
        ended = "%.6f" % self.ended if self.ended else "in flight"
        return "%7d conn %d slot %2d %-12s %#10x+%#-8x %.6f-%s %s" % (
            self.number, self.conn, self.slot.number, self.kind, self.offset,
            self.length, self.started, ended, self.note)


class Stress:
    def __init__(self, a):
        self.a = a
        self.rng = random.Random(a.seed)
        self.handles = []
        self.log = []
        self.done = []
        self.count = 0
        self.fast_refused = 0

    def connect(self):
        h = nbd.NBD()
        h.add_meta_context("base:allocation")
        h.connect_uri(self.a.uri)
        return h

    # What to do.

    def cut(self):
        """Cut the disk into pieces and deal them out."""
        a, rng, size = self.a, self.rng, self.model_size
        cuts = {0, size}
        pos = 0
        # Coarsely all over, ...
        while pos < size:
            pos += rng.choice([rng.randint(1, a.cluster),
                               rng.randint(1, 3 * a.cluster),
                               rng.randint(1, 8) * a.cluster])
            cuts.add(min(pos, size))
        # ... and finely in some places, where everybody meets.
        hot = []
        for _ in range(max(1, min(8, size // a.cluster // 4))):
            start = rng.randrange(0, max(1, size - a.cluster))
            start -= rng.choice([0, start % a.cluster])
            end = min(size, start + rng.randint(1, 3) * a.cluster)
            hot.append((start, end))
            step = rng.choice([a.cluster // 3, a.cluster // 8, 1000])
            pos = start
            while pos < end:
                pos += rng.randint(1, max(2, min(step, a.cluster)))
                cuts.add(min(pos, end))
        # The last cluster is a hot one, too: it may be a partial one.
        end = size
        for _ in range(8):
            end -= rng.randint(1, max(1, a.cluster // 8))
            if end > 0:
                cuts.add(end)
        cuts = sorted(cuts)
        for slot in self.slots:
            slot.pieces = []
            slot.hot = []
        hot.sort()
        for i in range(len(cuts) - 1):
            slot = self.slots[rng.randrange(len(self.slots))]
            piece = (cuts[i], cuts[i + 1] - cuts[i])
            slot.pieces.append(piece)
            if any(s <= piece[0] < e for s, e in hot):
                slot.hot.append(piece)

    def pick(self, slot):
        rng, a = slot.rng, self.a
        pieces = slot.pieces
        if slot.hot and rng.random() < 0.6:
            pieces = slot.hot
        start, length = pieces[rng.randrange(len(pieces))]
        how = rng.random()
        if how < 0.4:                   # all of it
            pass
        elif how < 0.6:                 # its aligned part, if any
            align = rng.choice([512, 4096, a.cluster])
            end = (start + length) // align * align
            begin = (start + align - 1) // align * align
            if end > begin:
                start, length = begin, end - begin
        else:
            skip = rng.randrange(length)
            start += skip
            length = rng.randint(1, length - skip)
        return start, min(length, a.max_length)

    def start(self, slot):
        """Send the slot's next request."""
        h = self.handles[slot.number % len(self.handles)]
        conn = slot.number % len(self.handles)
        rng = slot.rng
        if not slot.pieces:
            return False
        kinds = self.kinds
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        offset, length = self.pick(slot)
        op = Op(self.count, conn, slot, kind, offset, length)
        self.count += 1
        self.log.append(op)
        slot.op = op

        def completed(error):
            op.ended = time.monotonic()
            self.done.append((op, getattr(error, "value", error)))
            return 1

        fua = 0
        if self.fua and rng.random() < 0.08:
            fua = nbd.CMD_FLAG_FUA
            op.note = "fua"
        if kind == "read":
            op.buffer = nbd.Buffer(length)
            h.aio_pread(op.buffer, offset, completion=completed)
        elif kind in ("write", "write-zeros"):
            if kind == "write-zeros":
                op.blob = bytes(length)
            elif rng.random() < 0.25:
                op.blob = rng.randbytes(length)
            else:
                op.blob = pattern(op.number, offset, length)
            op.buffer = nbd.Buffer.from_bytearray(bytearray(op.blob))
            h.aio_pwrite(op.buffer, offset, completion=completed, flags=fua)
        elif kind in ("zero", "zero-nohole", "zero-fast"):
            flags = {"zero": 0, "zero-nohole": nbd.CMD_FLAG_NO_HOLE,
                     "zero-fast": nbd.CMD_FLAG_FAST_ZERO
                     | rng.choice([0, nbd.CMD_FLAG_NO_HOLE])}[kind]
            if kind == "zero-fast" and not self.fast:
                flags &= ~nbd.CMD_FLAG_FAST_ZERO
            op.note += " flags=%d" % flags
            h.aio_zero(length, offset, completion=completed,
                       flags=flags | fua)
        elif kind == "trim":
            h.aio_trim(length, offset, completion=completed, flags=fua)
        elif kind == "flush":
            h.aio_flush(completion=completed)
        elif kind == "cache":
            h.aio_cache(length, offset, completion=completed)
        elif kind == "status":
            def extents(context, start, entries, error):
                if context == "base:allocation":
                    op.extents.append((start, list(entries)))
                return 0
            h.aio_block_status(length, offset, extents, completion=completed)
        else:
            raise AssertionError(kind)
        return True

    def finish(self, op, error):
        """The answer to a request has come."""
        kind, model = op.kind, self.model
        op.slot.op = None
        if error:
            op.note += " errno %d" % error
            if kind == "zero-fast" and error in (95, 524):
                # The protocol prefers that nothing has been done then; what
                # was done can only be zeroing.
                self.fast_refused += 1
                model.trim(op.offset, op.length)
                return
            raise Wrong("errno %d from: %s" % (error, op))
        if kind == "read":
            self.compare(op.offset, op.buffer.to_bytearray(), op)
        elif kind in ("write", "write-zeros"):
            model.write(op.offset, op.blob)
        elif kind.startswith("zero"):
            model.zero(op.offset, op.length)
        elif kind == "trim":
            model.trim(op.offset, op.length)
        elif kind == "status":
            self.compare_status(op.offset, op.length, op.extents, op)
        op.blob = op.buffer = op.extents = None

    # Comparing.

    def compare(self, offset, blob, what):
        bad = self.model.read(offset, blob)
        if bad is not None:
            at = bad - bad % 16
            got = bytes(blob[max(0, at - offset):at - offset + 48])
            raise Wrong("byte %#x (cluster %#x + %#x) is %#x, should be %#x%s;"
                        "\nfrom %#x on there is     %r\n"
                        "       and should be %r\nseen by: %s%s"
                        % (bad, bad // self.a.cluster, bad % self.a.cluster,
                           blob[bad - offset], self.model.data[bad],
                           " or 0" if self.model.maybe[bad] else "",
                           max(at, offset), got,
                           bytes(self.model.data[max(at, offset):at + 48]),
                           what, self.history(bad)))

    def compare_status(self, offset, length, answers, what):
        """Compare what block status says; how far it goes."""
        pos = offset
        for start, entries in answers:
            if start != pos or len(entries) < 2:
                raise Wrong("block status of %#x: %r" % (offset, answers))
            for n, flags in zip(entries[::2], entries[1::2]):
                if n == 0:
                    raise Wrong("block status with nothing at %#x" % pos)
                # The last extent may run past the request.
                m = min(n, offset + length - pos)
                if flags & nbd.STATE_ZERO and m > 0:
                    bad = self.model.says_zero(pos, m)
                    if bad is not None:
                        raise Wrong("block status says zero at %#x+%#x, but "
                                    "at %#x there is %#x\nseen by: %s%s"
                                    % (pos, n, bad, self.model.data[bad],
                                       what, self.history(bad)))
                pos += n
        if pos == offset:
            raise Wrong("block status without an answer at %#x" % offset)
        return pos

    def history(self, at):
        """Requests around this byte, for the one who has to find out."""
        lines = ["", "requests that touch its cluster (<- the byte itself):"]
        c = self.a.cluster
        first = at - at % c
        for op in [op for op in self.log
                   if op.kind not in ("flush", "cache", "status")
                   and op.offset < first + c
                   and op.offset + op.length > first][-60:]:
            hit = op.offset <= at < op.offset + op.length
            lines.append(str(op) + (" <-" if hit else ""))
        flushes = [op for op in self.log if op.kind == "flush"][-10:]
        lines.append("last flushes:")
        lines += [str(op) for op in flushes]
        return "\n".join(lines)

    # The loop.

    def poll(self):
        poll = select.poll()
        fds = {}
        for h in self.handles:
            direction = h.aio_get_direction()
            mask = 0
            if direction & nbd.AIO_DIRECTION_READ:
                mask |= select.POLLIN
            if direction & nbd.AIO_DIRECTION_WRITE:
                mask |= select.POLLOUT
            if mask:
                fd = h.aio_get_fd()
                fds[fd] = h
                poll.register(fd, mask)
        events = poll.poll(HANG * 1000)
        if not events:
            raise Wrong("no answer for %d seconds; in flight:\n%s"
                        % (HANG, "\n".join(str(s.op) for s in self.slots
                                           if s.op)))
        for fd, got in events:
            h = fds[fd]
            direction = h.aio_get_direction()
            if got & (select.POLLIN | select.POLLHUP | select.POLLERR) \
               and direction & nbd.AIO_DIRECTION_READ:
                h.aio_notify_read()
            elif got & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                h.aio_notify_write()

    def phase(self, ops):
        """So many requests, shared among the slots."""
        todo = {slot: ops // len(self.slots) for slot in self.slots}
        busy = 0
        for slot in self.slots:
            if todo[slot] > 0 and self.start(slot):
                todo[slot] -= 1
                busy += 1
        while busy:
            self.poll()
            done, self.done = self.done, []
            for op, error in done:
                busy -= 1
                self.finish(op, error)
                slot = op.slot
                if todo[slot] > 0 and self.start(slot):
                    todo[slot] -= 1
                    busy += 1

    def whole(self, what):
        """Compare the whole disk and its map."""
        h, size = self.handles[0], self.model_size
        step = 1 << 20
        # Both ways round: a map may be drawn before anything is in a cache.
        order = ["map", "data"]
        self.rng.shuffle(order)
        for thing in order:
            pos = 0
            while pos < size:
                n = min(step * 32 if thing == "map" else step, size - pos)
                if thing == "data":
                    self.compare(pos, h.pread(n, pos), what)
                    pos += n
                    continue
                answers = []

                def extents(context, start, entries, error, answers=answers):
                    answers.append((start, list(entries)))
                    return 0
                h.block_status(n, pos, extents)
                pos = self.compare_status(pos, n, answers, what)

    def run(self):
        a = self.a
        self.handles = [self.connect() for _ in range(a.connections)]
        h = self.handles[0]
        size = self.model_size = h.get_size()
        if a.size is not None and a.size != size:
            raise Wrong("the disk has %d bytes, not %d" % (size, a.size))
        if h.is_read_only():
            raise Wrong("the export is read-only")
        if a.connections > 1 and not h.can_multi_conn():
            raise Wrong("the export does not allow several connections")
        for can in "flush", "fua", "zero", "trim":
            if not getattr(h, "can_" + can)():
                raise Wrong("the export cannot " + can)
        self.fua = h.can_fua()
        self.fast = h.can_fast_zero()
        self.kinds = {"read": 20, "write": 34, "write-zeros": 2, "zero": 8,
                      "zero-nohole": 5, "zero-fast": 4, "trim": 9, "flush": 5,
                      "cache": 1 if h.can_cache() else 0, "status": 6}
        for change in a.weight:
            kind, weight = change.split("=")
            if kind not in self.kinds:
                sys.exit("stress.py: no such kind of request: " + kind)
            self.kinds[kind] = int(weight)
        self.model = Model(size, a.model_in)
        self.slots = [Slot(i, a.seed)
                      for i in range(a.connections * a.depth)]
        left = a.ops
        while left > 0:
            n = min(left, max(a.ops // a.phases, len(self.slots)))
            self.cut()
            self.phase(n)
            left -= n
            what = "the comparison after %d requests" % self.count
            # Not always, for reading settles what trims left open, and
            # fills caches.
            if left > 0 and self.rng.random() < 0.3:
                self.whole(what)
        for h in self.handles:
            h.shutdown()
        self.handles = [self.connect()]
        self.whole("the last comparison")
        self.handles[0].shutdown()
        if a.model_out:
            with open(a.model_out, "wb") as f:
                f.write(self.model.data)
        tally = {}
        for op in self.log:
            tally[op.kind] = tally.get(op.kind, 0) + 1
        print("stress.py: fine: %d requests (%s; %d fast zeroes refused)"
              % (self.count, ", ".join("%d %s" % (n, k)
                                       for k, n in sorted(tally.items())),
                 self.fast_refused))


def number(text):
    units = {"K": 10, "M": 20, "G": 30}
    if text[-1:] in units:
        return int(text[:-1], 0) << units[text[-1]]
    return int(text, 0)


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("uri")
    p.add_argument("--seed", type=int, help="default: a fresh one")
    p.add_argument("--ops", type=int, default=1000,
                   help="how many requests")
    p.add_argument("--size", type=number,
                   help="fail unless the disk has this size")
    p.add_argument("--cluster", type=number, default=65536,
                   help="the image's cluster size: pieces depend on it")
    p.add_argument("--connections", type=int, default=4)
    p.add_argument("--depth", type=int, default=4,
                   help="requests in flight on each connection")
    p.add_argument("--phases", type=int, default=4,
                   help="how often to cut the disk")
    p.add_argument("--max-length", type=number, default=number("3M"))
    p.add_argument("--weight", metavar="KIND=N", action="append", default=[],
                   help="how often to send requests of a kind")
    p.add_argument("--model-in", metavar="FILE",
                   help="what the disk has at first (default: zeros)")
    p.add_argument("--model-out", metavar="FILE",
                   help="write there what the disk has at the end")
    a = p.parse_args()
    if a.seed is None:
        a.seed = random.SystemRandom().randrange(10 ** 9)
    print("stress.py: seed %d, %d requests, cluster %d"
          % (a.seed, a.ops, a.cluster), flush=True)
    try:
        Stress(a).run()
    except (Wrong, nbd.Error) as e:
        sys.exit("stress.py: seed %d: %s" % (a.seed, e))


if __name__ == "__main__":
    main()
