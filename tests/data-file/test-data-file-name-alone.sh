#!/usr/bin/env bash
# The name of a data file without the bit "external data file" is a warning:
# the image has its data inside, and the named file is never opened.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires strace -V
requires_nbd_module
cd "$tmp"

mkfifo never.fifo
echo secret > never.txt
for name in never.txt never.fifo missing.raw ../up.raw /etc/passwd \
            nbd://localhost json:{}; do
    mkimage x.qcow2 --data 0-3=1 --zero 4 --data-file "$name" \
            --data-file-bit off --reference ref.raw
    same x.qcow2 ref.raw 2>&1 | tee log
    [ "${PIPESTATUS[0]}" = 0 ] || fail "$name: not served"
    grep -qiE 'data.file' log || fail "$name: no warning"
done

mkimage x.qcow2 --data 0-3=1 --data-file never.txt --data-file-bit off
# A sanitizer's leak check does not work under strace.
ASAN_OPTIONS=detect_leaks=0 \
    strace -f -o trace -e trace=open,openat,openat2 \
    nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
    --run "nbdinfo \"\$uri\""
grep -q 'x\.qcow2' trace || fail "the trace shows nothing"
! grep never.txt trace || fail "the file was opened"
