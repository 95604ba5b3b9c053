#!/usr/bin/env python3
"""Copies of the sources, with rules broken.

    apply.py RULES SOURCES COPIES
    apply.py --names RULES

Copies every .c and .h file below SOURCES to COPIES, with what RULES says.  A
rule begins with "@ FILE: NAME..." and goes on like a patch without line
numbers: of its lines, those that begin with " " or "-" are the text as it is,
those with " " or "+" are the text as it is in the copy.  "+" lines use
MUTANT (NAME), or PAUSE_POINT ("what has happened"), of mutant.h.

A rule must match exactly once, and no two may change the same lines; anything
else is an error, and nothing is written.  Then either the code has changed, and
the rule has to follow, or it says too little.  "#" begins a comment.
"""

import os
import re
import sys


class Error(Exception):
    pass


class Rule:
    def __init__(self, where, file, names):
        self.where, self.file, self.names = where, file, names
        self.body = []

    def lines(self, kinds):
        return [line[1:] for line in self.body if line[0] in kinds]

    def check(self):
        while self.body and self.body[-1].strip() == "":
            self.body.pop()
        new = "".join(self.lines("+"))
        used = set(re.findall(r"MUTANT \((\w+)\)", new))
        if used != set(self.names):
            raise Error("%s: it names %s, but its lines use %s"
                        % (self.where, " ".join(self.names) or "nothing",
                           " ".join(sorted(used)) or "nothing"))
        if not used and "PAUSE_POINT (" not in new:
            raise Error("%s: neither a mutant nor a pause point" % self.where)
        if not self.lines(" -"):
            raise Error("%s: it does not say where" % self.where)

    def find(self, text):
        """The lines of text that it changes, as (from, to)."""
        old = self.lines(" -")
        found = [i for i in range(len(text) - len(old) + 1)
                 if text[i:i + len(old)] == old]
        if len(found) != 1:
            raise Error("%s: its text is found %s in %s:\n%s"
                        % (self.where, "%d times" % len(found) if found
                           else "nowhere", self.file, "".join(old)))
        kinds = [line[0] for line in self.body]
        first = next(i for i, k in enumerate(kinds) if k != " ")
        last = max(i for i, k in enumerate(kinds) if k != " ")
        self.new = [line[1:] for line in self.body[first:last + 1]
                    if line[0] != "-"]
        start = found[0] + first
        return start, start + sum(k != "+" for k in kinds[first:last + 1])


def read_rules(name):
    rules = []
    with open(name) as f:
        for number, line in enumerate(f, 1):
            where = "%s:%d" % (os.path.basename(name), number)
            if line[0] == "#":
                continue
            if line[0] == "@":
                m = re.fullmatch(r"@ (\S+):((?: \w+)*)\n", line)
                if not m:
                    raise Error("%s: not '@ FILE: NAME...'" % where)
                rules.append(Rule(where, m[1], m[2].split()))
            elif line == "\n":
                if rules:
                    rules[-1].body.append(" \n")
            elif line[0] in " +-" and rules:
                rules[-1].body.append(line)
            else:
                raise Error("%s: not a line of a rule" % where)
    for rule in rules:
        rule.check()
    return rules


def changed(text, rules):
    spans = sorted(((*rule.find(text), rule) for rule in rules),
                   key=lambda s: s[:2])
    for (start, end, a), (start2, _, b) in zip(spans, spans[1:]):
        if start2 < end or start2 == start:
            raise Error("%s and %s change the same lines of %s"
                        % (a.where, b.where, a.file))
    for start, end, rule in reversed(spans):
        text[start:end] = rule.new
    return text


def main(argv):
    if len(argv) == 3 and argv[1] == "--names":
        names = {name for rule in read_rules(argv[2]) for name in rule.names}
        print("\n".join(sorted(names)))
        return
    if len(argv) != 4:
        raise Error(__doc__)
    rules, sources, copies = read_rules(argv[1]), argv[2], argv[3]

    out = {}
    for top, _, files in os.walk(sources):
        for file in files:
            if file.endswith((".c", ".h")):
                name = os.path.relpath(os.path.join(top, file), sources)
                with open(os.path.join(top, file)) as f:
                    out[name] = f.readlines()
    for name in {rule.file for rule in rules}:
        if name not in out:
            raise Error("%s: no such file below %s" % (name, sources))
        out[name] = changed(out[name], [r for r in rules if r.file == name])

    # What has not changed keeps its time, so that it is not compiled again.
    for name, lines in out.items():
        path = os.path.join(copies, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(path) as f:
                same = f.readlines() == lines
        except FileNotFoundError:
            same = False
        if not same:
            with open(path, "w") as f:
                f.writelines(lines)
    for top, _, files in os.walk(copies):
        for file in files:
            path = os.path.join(top, file)
            if file.endswith((".c", ".h")) and \
               os.path.relpath(path, copies) not in out:
                os.unlink(path)


try:
    main(sys.argv)
except Error as e:
    sys.exit(str(e))
