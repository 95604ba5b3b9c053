#!/usr/bin/python3
"""Copies of an image with one bitmap, each with one lie about it.

    bitmap-lies.py IMAGE DIRECTORY

Writes DIRECTORY/NAME.qcow2 and prints "NAME KIND": "damaged" for lies that make the
bitmaps useless at once, "table" for those that are seen when the table is used.
The image has clusters of 64 KiB.
"""

import struct
import sys

CLUSTER = 65536


def main():
    with open(sys.argv[1], "rb") as f:
        image = f.read()
    at = struct.unpack_from(">I", image, 100)[0]
    while struct.unpack_from(">I", image, at)[0] != 0x23852875:
        length = struct.unpack_from(">I", image, at + 4)[0]
        at += 8 + (length + 7) // 8 * 8
    ext = at + 8
    directory = struct.unpack_from(">Q", image, ext + 16)[0]
    table = struct.unpack_from(">Q", image, directory)[0]
    l1 = struct.unpack_from(">Q", image, 40)[0]
    reftable = struct.unpack_from(">Q", image, 48)[0]
    block = struct.unpack_from(">Q", image, reftable)[0]
    end = (len(image) // CLUSTER + 100) * CLUSTER

    lies = [
        ("more-bitmaps", "damaged", ext, ">I", 2),
        ("many-bitmaps", "damaged", ext, ">I", 65535),
        ("directory-past-the-end", "damaged", ext + 16, ">Q", end),
        ("directory-is-the-header", "damaged", ext + 16, ">Q", 0),
        ("directory-is-the-l1-table", "damaged", ext + 16, ">Q", l1),
        ("directory-too-large", "damaged", ext + 8, ">Q", 60 << 20),
        ("directory-too-small", "damaged", ext + 8, ">Q", 8),
        ("table-not-aligned", "damaged", directory, ">Q", table + 512),
        ("table-past-the-end", "damaged", directory, ">Q", end),
        ("table-far-away", "damaged", directory, ">Q", 1 << 63),
        ("table-empty", "damaged", directory + 8, ">I", 0),
        ("table-huge", "damaged", directory + 8, ">I", 0xffffffff),
        ("unknown-flags", "damaged", directory + 12, ">I", 0x80000002),
        ("unknown-type", "damaged", directory + 16, ">B", 2),
        ("granularity-8", "damaged", directory + 17, ">B", 8),
        ("granularity-32", "damaged", directory + 17, ">B", 32),
        ("granularity-255", "damaged", directory + 17, ">B", 255),
        ("name-empty", "damaged", directory + 18, ">H", 0),
        ("name-too-long", "damaged", directory + 18, ">H", 65535),
        ("extra-data-huge", "damaged", directory + 20, ">I", 0xffffffff),
        ("bits-past-the-end", "table", table, ">Q", end),
        ("bits-not-aligned", "table", table, ">Q", CLUSTER + 512),
        ("bits-reserved", "table", table, ">Q", 1 << 60),
        ("bits-are-the-l1-table", "table", table, ">Q", l1),
        ("bits-are-refcounts", "table", table, ">Q", block),
        ("bits-are-the-reftable", "table", table, ">Q", reftable),
        ("bits-are-the-directory", "table", table, ">Q", directory),
    ]
    for name, kind, where, how, value in lies:
        b = bytearray(image)
        struct.pack_into(how, b, where, value)
        with open("%s/%s.qcow2" % (sys.argv[2], name), "wb") as f:
            f.write(b)
        print(name, kind)


main()
