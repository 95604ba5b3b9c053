#!/usr/bin/python3
"""Change the engine and stores in one place at a time: do unit tests notice?

    generate.py run DIR [--count 600] [--seed 1] [--jobs N] [--file PART]...
    generate.py report DIR
    generate.py list [--file PART]...

From each file under filter/qcow2, and the stores that have unit tests, in
proportion to the places that it has, places are drawn at random, and changed:

    condition   if (x) becomes if (! (x)); likewise while, for, ?:
    logic       && becomes || and the other way round
    boundary    < becomes <=, > becomes >=, == becomes !=, ...
    arithmetic  + becomes -, << becomes >>, & becomes |, ...
    constant    0 becomes 1, any other number one more
    call        a call whose result nobody asks for is left out

Each mutant is compiled in a copy of the tree.  If that gives the same machine
code it is equivalent; if not, the unit tests are run, cheapest first, until one
fails, or takes far longer than without the change: all mutants with the cheap
tests, then those left with the others.  DIR has a copy for each job, and results,
one a line, to which a run that is started again adds.

What survives is to be read.  A survivor that makes no difference anybody could
see goes into equivalent.txt, beside this file, with the reason.  After new tests
"run --again" tries the survivors once more, with --sanitize as CI's stage of
sanitizers does, with --cheap without the tests that take minutes.

Needed: gcc, python3-clang (libclang), and what it takes to build.
"""

import argparse
import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time

top = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
here = os.path.dirname(os.path.abspath(__file__))

# In the order of what they cost, with what they are started with, in the form
# that "make check" runs.
CHEAP = [
    ("unit/test-unit-bitmap-storing", []),
    ("unit/test-unit-lost-table", []),
    ("fuzz/replay-snapshots", []),
    ("fuzz/replay-compress", []),
    ("unit/test-unit-byte-allocator", []),
    ("unit/test-unit-crash", ["short", "9973"]),
    ("unit/test-unit-bitmap-directory", []),
    ("unit/test-unit-changed-tables", []),
    ("unit/test-unit-check-places", []),
    ("unit/test-unit-commit", []),
    ("unit/test-unit-compact-tables", []),
    ("unit/test-unit-epochs", []),
    ("unit/test-unit-first-write", []),
    ("unit/test-unit-full-device", []),
    ("unit/test-unit-header", []),
    ("unit/test-unit-messages", []),
    ("unit/test-unit-metadata-map", []),
    ("unit/test-unit-metadata-walk", []),
    ("unit/test-unit-opening", []),
    ("unit/test-unit-own-table", []),
    ("unit/test-unit-runs", []),
    ("unit/test-unit-snapshot-table", []),
    ("unit/test-unit-space-back", []),
    ("unit/test-unit-table", []),
    ("unit/test-unit-tables-ahead", []),
    ("unit/test-unit-retry", []),
    ("unit/test-unit-writing", []),
    ("unit/test-unit-around", []),
    ("unit/test-unit-compressed", []),
    ("unit/test-unit-decoder", []),
    ("unit/test-unit-decoded", []),
    ("unit/test-unit-extents", []),
    ("unit/test-unit-in-place", []),
    ("unit/test-unit-no-space", []),
    ("unit/test-unit-ranges", []),
    ("unit/test-unit-l2-entry", []),
    ("unit/test-unit-guard", []),
    ("unit/test-unit-is-zero", []),
    ("unit/test-unit-refcount-zero", []),
    ("unit/test-unit-first-flush", []),
    ("unit/test-unit-bitmap-export", []),
    ("unit/test-unit-crew", []),
    ("fuzz/replay-header", []),
    ("fuzz/replay-bitmaps", []),
    ("fuzz/replay-decode", []),
    ("fuzz/replay-luks", []),
    ("fuzz/replay-names", []),
    ("fuzz/replay-session", []),
    ("unit/test-unit-cache-use", []),
    ("unit/test-unit-refcounts", []),
    ("unit/test-unit-blocks-ahead", []),
    ("unit/test-unit-cluster-set", []),
    ("unit/test-unit-encoder", []),
    ("unit/test-unit-luks", []),
    ("unit/test-unit-check", []),
    ("unit/test-unit-stress", []),
]
# So many are built at first, as most mutants do not live longer.
FIRST = 6
# Only for what none of these notices.
DEAR = [
    ("unit/test-unit-hostile", []),
    ("unit/test-unit-faults", []),
    ("unit/test-unit-races", []),
    ("unit/test-unit-crash", []),
]
# Stores of the filter that have unit tests of their own.
AHEAD = [("unit/test-unit-ahead", [])]
DIRECT = [("unit/test-unit-direct", [])]
BLOCK_LOCK = [("unit/test-unit-block-lock", [])] + DIRECT
LUKS = [("unit/test-unit-luks", [])]
STORES = {
    "block-lock.c": BLOCK_LOCK,
    "bounce.c": DIRECT,
    "chunks.c": AHEAD,
    "cipher.c": LUKS,
    "direct-limits.c": DIRECT,
    "luks-key.c": LUKS,
    "store-ahead.c": AHEAD,
    "store-crypt.c": LUKS,
    "store-direct.c": DIRECT,
    "streams.c": AHEAD,
}
TESTS = CHEAP + DEAR + AHEAD + BLOCK_LOCK


# What is about a part of the engine needs not be built for the others.
ONLY_FOR = {
    "fuzz/replay-decode": "/data/",
    "fuzz/replay-header": "/disk/",
    "fuzz/replay-luks": "luks",
    "fuzz/replay-names": "/base/",
    "unit/test-unit-around": "/data/",
    "unit/test-unit-bitmap-directory": "/disk/",
    "unit/test-unit-check": "check|metadata-walk",
    "unit/test-unit-check-places": "check",
    "unit/test-unit-cluster-set": "/space/",
    "unit/test-unit-commit": "/commit/",
    "unit/test-unit-compact-tables": "/map/",
    "unit/test-unit-compressed": "/data/",
    "unit/test-unit-crew": "/base/",
    "unit/test-unit-decoded": "/data/",
    "unit/test-unit-decoder": "/data/",
    "unit/test-unit-encoder": "/data/",
    "unit/test-unit-epochs": "/space/",
    "unit/test-unit-extents": "/data/",
    "unit/test-unit-guard": "/data/",
    "unit/test-unit-header": "/disk/",
    "unit/test-unit-in-place": "/data/",
    "unit/test-unit-is-zero": "/base/",
    "unit/test-unit-l2-entry": "/disk/",
    "unit/test-unit-luks": "luks",
    "unit/test-unit-messages": "/base/",
    "unit/test-unit-metadata-map": "/space/",
    "unit/test-unit-metadata-walk": "/disk/",
    "unit/test-unit-ranges": "/data/",
    "unit/test-unit-runs": "/map/",
    "unit/test-unit-snapshot-table": "/disk/",
    "unit/test-unit-table": "/disk/",
    "unit/test-unit-tables-ahead": "/map/",
}


def tests_of(path, dear=False):
    if "/qcow2/" not in path:
        return STORES[os.path.basename(path)]
    return [t for t in (DEAR if dear else CHEAP)
            if re.search(ONLY_FOR.get(t[0], ""), path)]


# What only says something to people, or to the compiler.
SILENT = re.compile(r"(report|debug|warn|explain|complain|__builtin_expect|"
                    r"static_assert|memory_order)")


# --- places ---

def find_files(parts):
    found = [path for path in (os.path.join("filter", name) for name in STORES)
             if not parts or any(p in path for p in parts)]
    for where, _, names in os.walk(os.path.join(top, "filter", "qcow2")):
        for name in names:
            path = os.path.relpath(os.path.join(where, name), top)
            if name.endswith(".c") and (not parts or any(p in path
                                                         for p in parts)):
                found.append(path)
    return sorted(found)


def find_places(path, config_dir):
    """Mutants of a file: dicts with kind, where, old and new text, id."""
    import clang.cindex as c
    args = ["-std=gnu11", "-D_GNU_SOURCE", "-I" + config_dir,
            "-I" + os.path.join(top, "filter", "qcow2"),
            "-I" + os.path.join(top, "filter")]
    try:
        resource = subprocess.run(
            ["clang", "-print-resource-dir"], stdout=subprocess.PIPE,
            text=True, check=True).stdout.strip()
        args += ["-isystem", os.path.join(resource, "include")]
    except (OSError, subprocess.CalledProcessError):
        pass
    full = os.path.join(top, path)
    with open(full, "rb") as f:
        text = f.read()
    unit = c.Index.create().parse(full, args)
    errors = [d for d in unit.diagnostics if d.severity >= 3]
    if errors:
        sys.exit("generate.py: %s: %s" % (path, errors[0]))
    K = c.CursorKind
    places = []
    function = None

    def span(cursor):
        a, b = cursor.extent.start, cursor.extent.end
        if a.file is None or b.file is None or a.file.name != full \
           or b.file.name != full:
            return None
        return a.offset, b.offset

    def line_of(offset):
        return text.count(b"\n", 0, offset) + 1

    def add(kind, begin, end, new):
        old = text[begin:end].decode()
        where = text[text.rfind(b"\n", 0, begin) + 1:begin].decode()
        # Directives, and arguments of macros that are only for tests.
        if where.lstrip().startswith("#"):
            return
        if re.search(r"\b(MUTANT|PAUSE_POINT|static_assert)\s*\(", where):
            return
        places.append({"file": path, "line": line_of(begin), "kind": kind,
                       "begin": begin, "end": end, "old": old, "new": new,
                       "function": function})

    SWAP = {"&&": ("logic", "||"), "||": ("logic", "&&"),
            "<": ("boundary", "<="), "<=": ("boundary", "<"),
            ">": ("boundary", ">="), ">=": ("boundary", ">"),
            "==": ("boundary", "!="), "!=": ("boundary", "=="),
            "+": ("arithmetic", "-"), "-": ("arithmetic", "+"),
            "*": ("arithmetic", "/"), "/": ("arithmetic", "*"),
            "%": ("arithmetic", "/"),
            "<<": ("arithmetic", ">>"), ">>": ("arithmetic", "<<"),
            "&": ("arithmetic", "|"), "|": ("arithmetic", "&"),
            "+=": ("arithmetic", "-="), "-=": ("arithmetic", "+="),
            "|=": ("arithmetic", "&="), "&=": ("arithmetic", "|=")}

    def operator(cursor):
        """The operator between the two operands, by its tokens."""
        children = list(cursor.get_children())
        if len(children) != 2:
            return
        left, right = span(children[0]), span(children[1])
        if left is None or right is None or left[1] > right[0]:
            return
        between = text[left[1]:right[0]].decode()
        m = re.fullmatch(r"[\s)]*(\S+?)[\s(]*", between)
        if m and m.group(1) in SWAP:
            kind, new = SWAP[m.group(1)]
            at = left[1] + m.start(1)
            add(kind, at, at + len(m.group(1)), new)

    def condition(cursor):
        where = span(cursor)
        if where is None or where[0] >= where[1]:
            return
        old = text[where[0]:where[1]].decode()
        # A comparison alone is under "boundary".
        if cursor.kind == K.BINARY_OPERATOR and re.search("[=!]=", old) \
           and "&&" not in old and "||" not in old:
            return
        add("condition", where[0], where[1], "!(%s)" % old)

    def walk(cursor, parent):
        if cursor.kind in (K.IF_STMT, K.WHILE_STMT):
            condition(next(iter(cursor.get_children())))
        elif cursor.kind == K.CONDITIONAL_OPERATOR:
            condition(next(iter(cursor.get_children())))
        elif cursor.kind in (K.BINARY_OPERATOR,
                             K.COMPOUND_ASSIGNMENT_OPERATOR):
            operator(cursor)
        elif cursor.kind == K.INTEGER_LITERAL:
            where = span(cursor)
            if where:
                old = text[where[0]:where[1]].decode()
                if re.fullmatch(r"0|[1-9][0-9]*|0x[0-9a-fA-F]+", old):
                    add("constant", *where, str(int(old, 0) + 1))
        elif cursor.kind == K.CALL_EXPR and parent.kind in (
                K.COMPOUND_STMT, K.IF_STMT, K.FOR_STMT, K.WHILE_STMT):
            where = span(cursor)
            if where:
                old = text[where[0]:where[1]].decode()
                if "(" in old and not SILENT.search(old.split("(")[0]) \
                   and text[where[1]:where[1] + 1] == b";":
                    add("call", *where, "(void) 0")
        for child in cursor.get_children():
            walk(child, cursor)

    for cursor in unit.cursor.get_children():
        if cursor.location.file and cursor.location.file.name == full \
           and cursor.kind == K.FUNCTION_DECL and cursor.is_definition():
            function = cursor.spelling
            walk(cursor, unit.cursor)
    # The condition of an if is a child of it, too.
    unique = {(p["begin"], p["end"], p["new"]): p for p in places}
    # What a place is called holds as long as its line and function do.
    seen = {}
    for p in sorted(unique.values(), key=lambda p: (p["begin"], p["end"])):
        start = text.rfind(b"\n", 0, p["begin"]) + 1
        what = (p["function"], p["kind"], p["begin"] - start, p["old"],
                p["new"], text[start:text.find(b"\n", p["begin"])])
        seen[what] = seen.get(what, 0) + 1
        p["id"] = "%s:%s:%s:%s" % (
            p["file"], p["function"], p["kind"], hashlib.sha1(
                repr((what, seen[what])).encode()).hexdigest()[:6])
    return list(unique.values())


def draw(places, count, seed):
    """So many, of each file in proportion."""
    by_file = {}
    for p in places:
        by_file.setdefault(p["file"], []).append(p)
    chosen = []
    for path, mine in sorted(by_file.items()):
        # Which they are does not depend on what else there is.
        mine.sort(key=lambda p: hashlib.sha1(
            ("%d %s" % (seed, p["id"])).encode()).digest())
        n = max(1, round(count * len(mine) / len(places)))
        chosen += mine[:n]
    random.Random(seed).shuffle(chosen)
    return chosen


# --- trying ---

class Job(threading.Thread):
    def __init__(self, run, number):
        super().__init__()
        self.run_all, self.dir = run, os.path.join(run.dir, "job%d" % number)

    def make(self, *args):
        return subprocess.run(["make", "-s", *args], cwd=self.build,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT).returncode == 0

    def prepare(self):
        self.src = os.path.join(self.dir, "src")
        self.build = os.path.join(self.dir, "build")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.makedirs(self.src)
        os.makedirs(self.build)
        subprocess.run([os.path.join(top, ".ci", "copy-source"), self.src],
                       check=True, stdout=subprocess.DEVNULL)
        if not os.path.exists(os.path.join(self.src, "configure")):
            subprocess.run(["autoreconf", "-fi"], cwd=self.src, check=True,
                           stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
        # Without line numbers in it, the same code is the same object.  What is
        # not freed is a failure, too.
        sanitizer = "address,undefined" if self.run_all.sanitize else "leak"
        subprocess.run([os.path.join(self.src, "configure"), "-q",
                        "CFLAGS=-O2 -w -fsanitize=" + sanitizer],
                       cwd=self.build, check=True, stdout=subprocess.DEVNULL)
        programs = sorted({t for t, _ in self.run_all.tests})
        if not self.make() or not self.make("-C", "tests", *programs):
            print("generate.py: cannot build in " + self.build, flush=True)
            os._exit(1)
        self.unchanged = {path: self.digest(path) for path in find_files([])}

    def object(self, path):
        """The object of a file in a library, or in the filter."""
        where = os.path.join(self.build, os.path.dirname(path), ".libs")
        for library in ("libqcow2", "libencryption", "nbdkit_qcow2ext_filter"):
            name = os.path.join(where, "%s_la-%s.o" % (
                library, os.path.basename(path)[:-2]))
            if os.path.exists(name):
                return name
        sys.exit("generate.py: no object of " + path)

    def compile(self, path):
        library = os.path.basename(self.object(path)).split("-")[0]
        if library.startswith("nbdkit"):
            return self.make("-C", "filter", "%s-%s.lo" % (
                library, os.path.basename(path)[:-2]))
        return self.make("-C", "filter", library[:-3] + ".la")

    def digest(self, path):
        stripped = os.path.join(self.dir, "stripped.o")
        subprocess.run(["objcopy", "--strip-all", "--remove-section=.comment",
                        self.object(path), stripped], check=True)
        with open(stripped, "rb") as f:
            return hashlib.sha1(f.read()).hexdigest()

    def test(self, program, args, limit, log=subprocess.DEVNULL):
        """passed, failed or hangs; and how long it took"""
        begin = time.monotonic()
        p = subprocess.Popen([os.path.join(self.build, "tests", program),
                              *args], stdout=log, stderr=log,
                             stdin=subprocess.DEVNULL,
                             cwd=self.dir, start_new_session=True)
        try:
            code = p.wait(limit)
            what = "passed" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            what = "hangs"
        try:
            os.killpg(p.pid, 9)
        except ProcessLookupError:
            pass
        p.wait()
        return what, time.monotonic() - begin

    def try_one(self, place, tests):
        """Into the source the text comes back; into the object with the next
        call of make."""
        path = os.path.join(self.src, place["file"])
        with open(path, "rb") as f:
            text = f.read()
        changed = text[:place["begin"]] + place["new"].encode() \
            + text[place["end"]:]
        with open(path, "wb") as f:
            f.write(changed)
        try:
            if not self.compile(place["file"]):
                return "does not compile", None
            if self.digest(place["file"]) == self.unchanged[place["file"]]:
                return "same code", None
            for i, (program, args) in enumerate(tests):
                if i in (0, FIRST):
                    self.make("-k", "-C", "tests", *(
                        t for t, _ in (tests[:FIRST] if i == 0
                                       else tests[FIRST:])))
                # Where rules are broken on purpose, their text is looked for.
                if program.endswith("-races") \
                   and not self.make("-C", "tests", program):
                    continue
                limit = self.run_all.limits["%s %s" % (program, args)]
                what, _ = self.test(program, args, limit)
                if what != "passed":
                    return "killed", "%s %s%s" % (
                        os.path.basename(program), " ".join(args),
                        " (hangs)" if what == "hangs" else "")
            return "survived", None
        finally:
            with open(path, "wb") as f:
                f.write(text)

    def run(self):
        try:
            while True:
                place, dear = self.run_all.next()
                if place is None:
                    return
                tests = tests_of(place["file"], dear)
                begin = time.monotonic()
                result, by = self.try_one(place, tests)
                if result == "survived" and not dear \
                   and "/qcow2/" in place["file"]:
                    result = "left"
                self.run_all.done(place, result, by,
                                  time.monotonic() - begin)
        except Exception as e:          # pylint: disable=broad-except
            print("generate.py: job: %r" % e, flush=True)
            os._exit(1)


class Run:
    def __init__(self, a, every, places):
        self.dir = os.path.abspath(a.dir)
        self.sanitize = a.sanitize
        self.tests = [t for t in TESTS if not (a.cheap and t in DEAR)]
        self.lock = threading.Lock()
        self.results = os.path.join(self.dir, "results")
        known = read_results(self.results)
        if a.again:
            reasons = read_equivalent()
            places = [p for p in every if p["id"] not in reasons and known.get(
                p["id"], {"result": ""})["result"] in ("left", "survived")]
            known = {}
        self.todo = [p for p in places if p["id"] not in known]
        self.left = [p for p in places if p["id"] in known
                     and known[p["id"]]["result"] == "left"]
        if a.cheap:
            self.left = []
        self.jobs = [Job(self, i) for i in range(a.jobs)]
        self.limits = {}

    def next(self):
        with self.lock:
            if self.todo:
                return self.todo.pop(0), False
            # By now some may have been read.
            reasons = read_equivalent()
            while self.left:
                place = self.left.pop(0)
                if place["id"] not in reasons:
                    return place, True
            return None, False

    def done(self, place, result, by, seconds):
        with self.lock:
            r = dict(place, result=result, by=by, seconds=round(seconds, 1))
            if result == "left" and DEAR[0] in self.tests:
                self.left.append(place)
            with open(self.results, "a") as f:
                f.write(json.dumps(r) + "\n")
            print("%d and %d to do: %s: %s%s, %.0f seconds" % (
                len(self.todo), len(self.left), place["id"], result,
                " by " + by if by else "", seconds), flush=True)

    def run(self):
        preparing = [threading.Thread(target=job.prepare) for job in self.jobs]
        for thread in preparing:
            thread.start()
        for thread in preparing:
            thread.join()
        # What is not changed passes, and takes so long.
        log = os.path.join(self.dir, "unchanged.log")
        for program, args in self.tests:
            with open(log, "w") as f:
                what, seconds = self.jobs[0].test(program, args, 3600, f)
            if what != "passed":
                sys.exit("generate.py: %s %s fails without any change: see %s"
                         % (program, args, log))
            self.limits["%s %s" % (program, args)] = 5 + 10 * seconds
            print("%s %s: %.1f seconds" % (program, " ".join(args), seconds),
                  flush=True)
        for job in self.jobs:
            job.start()
        for job in self.jobs:
            job.join()


def read_results(path):
    """By id; what was found last counts."""
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return {r["id"]: r for r in map(json.loads, f)}


# --- reporting ---

def read_equivalent():
    """id: reason"""
    path = os.path.join(here, "equivalent.txt")
    found = {}
    if os.path.exists(path):
        with open(path) as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    name, reason = line.split(None, 1)
                    found[name] = reason.strip()
    return found


def wilson(k, n):
    """95 % confidence interval of a share."""
    if n == 0:
        return 0, 1
    z, p = 1.96, k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n
                                           + z * z / (4 * n * n))
    return middle - half, middle + half


def report(directory, places, chosen):
    found = read_results(os.path.join(directory, "results"))
    # Without places that are gone since then.
    results = [dict(found[p["id"]], line=p["line"]) for p in places
               if p["id"] in found]
    missing = sum(p["id"] not in found for p in chosen)
    reasons = read_equivalent()
    count, files, tests = {}, {}, {}
    survivors = []
    for r in results:
        what = r["result"]
        if what in ("left", "survived") and r["id"] in reasons:
            what = "equivalent"
        elif what in ("left", "survived"):
            what = "survived"
            survivors.append(r)
        count[what] = count.get(what, 0) + 1
        if what in ("killed", "survived"):
            f = files.setdefault(r["file"], [0, 0])
            f[what == "survived"] += 1
        if what == "killed":
            tests[r["by"]] = tests.get(r["by"], 0) + 1
    killed, survived = count.get("killed", 0), count.get("survived", 0)
    for r in sorted(survivors, key=lambda r: (r["file"], r["line"])):
        print("survived: %s (line %d): %r -> %r" % (r["id"], r["line"],
                                                    r["old"], r["new"]))
    print()
    for path, (k, s) in sorted(files.items()):
        print("%-45s %4d killed %4d survived" % (path, k, s))
    print()
    for name, n in sorted(tests.items(), key=lambda x: -x[1]):
        print("%4d killed by %s" % (n, name))
    print()
    low, high = wilson(killed, killed + survived)
    print("%d mutants: %s" % (len(results) + missing, ", ".join(
        ["%d %s" % (n, what) for what, n in sorted(count.items())]
        + (["%d not tried" % missing] if missing else []))))
    if killed + survived:
        print("killed: %.1f %% of those that are not equivalent (%.1f to %.1f "
              "with 95 %% confidence)" % (100 * killed / (killed + survived),
                                          100 * low, 100 * high))


def main():
    p = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    for name in ("run", "report", "list"):
        s = sub.add_parser(name)
        if name != "list":
            s.add_argument("dir")
            s.add_argument("--count", type=int, default=600)
            s.add_argument("--seed", type=int, default=1)
        s.add_argument("--file", action="append", default=[])
        s.add_argument("--config", help="a directory that has build-config.h "
                       "(default: one is made)")
        if name == "run":
            s.add_argument("--jobs", type=int, default=os.cpu_count())
            s.add_argument("--again", action="store_true",
                           help="try once more what had survived")
            s.add_argument("--cheap", action="store_true",
                           help="without the tests that take minutes")
            s.add_argument("--sanitize", action="store_true", help="with "
                           "AddressSanitizer and UndefinedBehaviorSanitizer")
    a = p.parse_args()
    config = a.config
    if not config:
        # An empty one will do: nothing in it changes where places are.
        config = os.path.join(os.environ.get("TMPDIR", "/tmp"),
                              "generate-mutants-config")
        os.makedirs(config, exist_ok=True)
        open(os.path.join(config, "build-config.h"), "a").close()
    places = []
    for path in find_files(a.file):
        places += find_places(path, config)
    if a.command == "list":
        kinds = {}
        for m in places:
            print("%s: %r -> %r" % (m["id"], m["old"], m["new"]))
            kinds[m["kind"]] = kinds.get(m["kind"], 0) + 1
        print("%d places: %s" % (len(places), ", ".join(
            "%d %s" % (n, k) for k, n in sorted(kinds.items()))))
        return
    chosen = draw(places, a.count, a.seed)
    print("%d of %d places" % (len(chosen), len(places)), flush=True)
    if a.command == "run":
        os.makedirs(a.dir, exist_ok=True)
        os.environ["QCOW2EXT_TEST_SHORT"] = "1"
        Run(a, places, chosen).run()
    report(a.dir, places, chosen)


if __name__ == "__main__":
    main()
