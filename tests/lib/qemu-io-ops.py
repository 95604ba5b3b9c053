#!/usr/bin/python3
"""Print commands for qemu-io: random writes, zeroes and discards."""

import argparse
import random

p = argparse.ArgumentParser()
p.add_argument("--seed", type=int, required=True)
p.add_argument("--size", type=int, required=True)
p.add_argument("--count", type=int, default=60)
p.add_argument("--compressed", type=int, metavar="CLUSTER",
               help="write compressed clusters of this size, too")
a = p.parse_args()
rng = random.Random(a.seed)
for i in range(a.count):
    length = 1 + int((a.size / 4) ** rng.random())
    offset = rng.randrange(a.size - length + 1)
    if rng.random() < 0.3:
        # Whole blocks are discarded and zeroed without copying.
        offset = offset // 65536 * 65536
        length = -(-length // 65536) * 65536
        length = min(length, a.size - offset)
    kind = rng.choice(["write -P %d" % (1 + i % 255)] * 3 +
                      ["write -z", "write -z -u", "discard"])
    if a.compressed and rng.random() < 0.4:
        kind = "write -c -P %d" % (1 + i % 255)
        offset = offset // a.compressed * a.compressed
        length = min(a.compressed, a.size - offset)
    if kind == "discard":
        offset = offset // 512 * 512
        length = min(-(-length // 512) * 512, a.size - offset)
    print(kind, offset, length)
