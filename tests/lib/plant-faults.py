#!/usr/bin/python3
"""Plant one fault of a kind in copies of a sound qcow2 image.

    plant-faults.py IMAGE DIRECTORY

Writes DIRECTORY/NAME.qcow2 for each kind that the image has room for, and prints
the names.  The image has clusters of 64 KiB, 16-bit refcounts and no extended L2
entries.
"""

import struct
import sys

CLUSTER = 65536
COPIED = 1 << 63
COMPRESSED = 1 << 62
OFFSET = 0x00fffffffffffe00


def u64(b, at):
    return struct.unpack_from(">Q", b, at)[0]


def put64(b, at, value):
    struct.pack_into(">Q", b, at, value)


def main():
    with open(sys.argv[1], "rb") as f:
        image = f.read()
    l1 = u64(image, 40)
    reftable = u64(image, 48)
    block = u64(image, reftable)
    l2 = u64(image, l1) & OFFSET
    entries = [l2 + 8 * i for i in range(CLUSTER // 8)]
    data = [at for at in entries
            if u64(image, at) & OFFSET and not u64(image, at) & COMPRESSED]
    packed = [at for at in entries if u64(image, at) & COMPRESSED]
    empty = [at for at in entries if u64(image, at) == 0]

    def count(host):
        at = block + 2 * (host // CLUSTER)
        return struct.unpack_from(">H", image, at)[0]

    faults = {"sound": lambda b: None}

    def fault(function):
        faults[function.__name__.replace("_", "-")] = function

    def set_count(b, host, value):
        struct.pack_into(">H", b, block + 2 * (host // CLUSTER), value)

    host = u64(image, data[0]) & OFFSET

    @fault
    def count_too_high(b):
        set_count(b, host, count(host) + 2)

    @fault
    def count_zero(b):
        set_count(b, host, 0)

    @fault
    def table_count_zero(b):
        set_count(b, l2, 0)

    @fault
    def header_count_zero(b):
        set_count(b, 0, 0)

    @fault
    def lost_entry(b):
        put64(b, data[0], 0)

    @fault
    def two_entries_for_one_cluster(b):
        put64(b, data[0], u64(image, data[1]))

    @fault
    def not_copied(b):
        put64(b, data[0], u64(image, data[0]) ^ COPIED)

    @fault
    def table_not_copied(b):
        put64(b, l1, u64(image, l1) ^ COPIED)

    @fault
    def past_the_end(b):
        put64(b, empty[0], COPIED | (len(image) // CLUSTER + 64) * CLUSTER)

    @fault
    def not_aligned(b):
        put64(b, data[0], u64(image, data[0]) + 512)

    @fault
    def reserved_bits(b):
        put64(b, data[0], u64(image, data[0]) | 1 << 57 | 2)

    @fault
    def all_counts_zero(b):
        b[block:block + CLUSTER] = bytes(CLUSTER)

    @fault
    def all_counts_two(b):
        b[block:block + CLUSTER] = b"\0\2" * (CLUSTER // 2)

    if packed:
        @fault
        def packed_copied(b):
            put64(b, packed[0], u64(image, packed[0]) | COPIED)

        @fault
        def packed_lost(b):
            put64(b, packed[0], 0)

    for name, function in faults.items():
        b = bytearray(image)
        function(b)
        with open("%s/%s.qcow2" % (sys.argv[2], name), "wb") as f:
            f.write(b)
        print(name)


main()
