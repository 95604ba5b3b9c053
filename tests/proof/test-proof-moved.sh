#!/usr/bin/env bash
# An image that is renamed, removed or replaced between the connection of a client
# and its first change is not written to, nor is what has come into its place; and
# the message says so instead of blaming filters.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

for opts in cluster_size=64K data_file=x.data; do
    for what in "mv x.qcow2 moved.qcow2" "cp x.qcow2 moved.qcow2; rm x.qcow2" \
                "mv x.qcow2 moved.qcow2; cp moved.qcow2 x.qcow2"; do
        new_image -o $opts x.qcow2 4M
        qemu-io -f qcow2 -c 'write -P 5 0 1M' x.qcow2
        cp x.qcow2 before.qcow2
        serve_log s --filter="$qcow2ext" file x.qcow2
        WHAT=$what nbdsh -u "$(uri s)" -c '
import errno, os, sys
os.system (os.environ["WHAT"])
try:
    h.pwrite (b"x" * 512, 3 << 20)
    sys.exit ("written to")
except nbd.Error as e:
    assert e.errnum == errno.EPERM, e
assert h.pread (1 << 20, 0) == b"\5" * (1 << 20)
h.flush ()
h.shutdown ()'
        cat s.log
        grep 'x.qcow2.*renamed, removed or replaced' s.log ||
            fail "the message does not say so"
        ! grep 'filter between' s.log || fail "the message blames filters"
        for f in ./*.qcow2; do
            cmp before.qcow2 "$f"
        done
        # The next client gets what is there now.
        mv moved.qcow2 x.qcow2
        nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * 512, 3 << 20)' \
              -c 'h.flush ()' -c 'h.shutdown ()'
        stop s
        clean
    done
done
