#!/usr/bin/env bash
# Zeros that are written as data become zero clusters, or subclusters; with
# unmap they give their space back, in a raw data file, too.  A disk of zeros
# takes no space.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
requires qemu-io --version
cd "$tmp"

# map: what QEMU says of the image, in short.
map ()
{
    qemu-img map --output=json x.qcow2 |
        "$PYTHON" -c 'import json, sys
runs = []
for e in json.load (sys.stdin):
    kind = "zeros" if e["zero"] else "data"
    if runs and runs[-1][0] == kind:
        runs[-1][1] += e["length"] >> 10
    else:
        runs.append ([kind, e["length"] >> 10])
print (*("%s:%d" % tuple (r) for r in runs))'
}

# blocks FILE: what it takes, in KiB.
blocks ()
{
    echo $(($(stat -c '%b * %B' "$1") / 1024))
}

# A disk of zeros.
new_image x.qcow2 1G
for mode in on unmap; do
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-detect-zeroes=$mode
    nbdsh -u "$(uri s)" -c '
zeros = nbd.Buffer.from_bytearray (bytearray (32 << 20))
at = 0
while at < h.get_size ():
    cookies = []
    for i in range (8):
        cookies.append (h.aio_pwrite (zeros, at))
        at += 32 << 20
    for c in cookies:
        while not h.aio_command_completed (c):
            h.poll (-1)
h.flush ()'
    stop s
    clean
    [ "$(blocks x.qcow2)" -lt 1024 ] || fail "$mode: $(blocks x.qcow2) KiB"
    [ "$(stat -c %s x.qcow2)" -lt $((1 << 20)) ] || fail "$mode: too large"
done

# Whole clusters only; what QEMU sees.
for mode in off on unmap; do
    for opts in cluster_size=64K extended_l2=on,cluster_size=64K compat=0.10; do
        new_image -o "$opts" x.qcow2 1M
        qemu-io -f qcow2 -c 'write -P 1 0 1M' x.qcow2 > io.log
        before=$(blocks x.qcow2)
        serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-detect-zeroes=$mode
        nbdsh -u "$(uri s)" -c '
h.pwrite (bytes (65536 * 4), 65536 - 1024)
h.pwrite (bytes (2048), 65536 * 8)
h.pwrite (bytes (65536) + b"x" * 65536 + bytes (65536), 65536 * 10)'
        stop s
        rm -f model.raw
        truncate -s 1M model.raw
        qemu-io -f raw -c 'write -P 1 0 1M' -c 'write -z 63K 256K' \
                -c 'write -z 512K 2K' -c 'write -z 640K 64K' \
                -c 'write -P 120 704K 64K' -c 'write -z 768K 64K' \
                model.raw > io.log
        clean
        identical model.raw
        found=$(map)
        case $mode,$opts in
            off,*) expected='data:1024' ;;
            *,*extended*) expected='data:64 zeros:254 data:194 zeros:2 data:126 zeros:64 data:64 zeros:64 data:192' ;;
            *) expected='data:64 zeros:192 data:384 zeros:64 data:64 zeros:64 data:192' ;;
        esac
        [ "$found" = "$expected" ] || fail "$mode $opts: $found"
        case $mode in
            unmap) [ "$(blocks x.qcow2)" -lt $((before - 256)) ] ||
                       fail "$mode $opts: no space was given back" ;;
            on) [ "$opts" = compat=0.10 ] ||
                    [ "$(blocks x.qcow2)" -ge $((before - 64)) ] ||
                    fail "$mode $opts: space was given back" ;;
        esac
    done
done

# A raw data file is zeroed itself.
for mode in on unmap; do
    new_image -o data_file=x.data,data_file_raw=on x.qcow2 1M
    qemu-io -f qcow2 -c 'write -P 1 0 1M' x.qcow2 > io.log
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-detect-zeroes=$mode
    nbdsh -u "$(uri s)" -c 'h.pwrite (bytes (512 << 10), 0)'
    stop s
    clean
    qemu-io -f raw -c 'read -P 0 0 512K' -c 'read -P 1 512K 512K' x.data > io.log
    if grep -q 'verification failed' io.log; then
        cat io.log
        fail "$mode: the data file"
    fi
    case $mode in
        on) [ "$(blocks x.data)" -ge 1000 ] || fail "space was given back" ;;
        unmap) [ "$(blocks x.data)" -lt 600 ] || fail "no space was given back" ;;
    esac
done
