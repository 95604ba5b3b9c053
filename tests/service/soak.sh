#!/usr/bin/env bash
# Random work for an hour: memory, descriptors, threads and files must not grow.
#
#   SOAK_SECONDS=3600   how long
#   SOAK_ROUNDS=N       or, how many rounds
#   SOAK_DUTY=100       per cent of that time to be busy
#   SOAK_SEED=N         default: a fresh one
#   SOAK_IMAGES="..."   which of: internal small raw plain
#   SOAK_SLACK=2048     KiB that memory may grow by (with 5 %), and a file (2 %)
#   SOAK_PLANT=memory   or fds, or file: plant a leak, which must be found
#
# One server for each image runs all the time, while stress.py comes and goes with
# one to four connections and compares all that it reads with what it wrote.  After
# each round, with nobody connected, qemu-img check must find the image clean and
# QEMU must read the same from it; then the server is measured.  In between,
# clients drop during negotiation, and one sits idle until the image is settled
# under it.  At the end the highest values of the last third are compared with
# those of the second.  The first third may be anything: caches fill.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module

[ -z "$SOAK_ROUNDS" ] || SOAK_SECONDS=86400
: "${SOAK_SECONDS:=3600}" "${SOAK_DUTY:=100}" "${SOAK_SLACK:=2048}"
: "${SOAK_SEED:=$RANDOM$RANDOM}" "${SOAK_PLANT:=}"
: "${SOAK_IMAGES:=internal small raw plain}"
cd "$tmp"
echo "soak: seed $SOAK_SEED, ${SOAK_ROUNDS:-for $SOAK_SECONDS seconds}${SOAK_ROUNDS:+ rounds}, images: $SOAK_IMAGES"
RANDOM=$((SOAK_SEED % 32768))
read -ra images <<< "$SOAK_IMAGES"

# What each has beside itself: a compressed backing file and an internal snapshot
# and a bitmap; tables that grow; a data file that is the disk, and a bitmap; a
# data file over a backing file.
declare -A size cluster
make_image ()
{
    case $1 in
        internal)
            cluster[$1]=65536; size[$1]=25168384
            qemu-img create -q -f qcow2 base.qcow2 20M
            scribble "$SOAK_SEED" 60 20971520 base.qcow2
            qemu-img convert -c -f qcow2 -O qcow2 base.qcow2 base2.qcow2
            qemu-img create -q -f qcow2 -o lazy_refcounts=on \
                     -b base2.qcow2 -F qcow2 internal.qcow2 "${size[$1]}"
            scribble "$SOAK_SEED" 30 "${size[$1]}" internal.qcow2
            qemu-img snapshot -c s internal.qcow2
            qemu-img bitmap --add internal.qcow2 b ;;
        small)
            cluster[$1]=512; size[$1]=1051136
            qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 \
                     small.qcow2 "${size[$1]}" ;;
        raw)
            cluster[$1]=65536; size[$1]=25168384
            qemu-img create -q -f qcow2 -o data_file=raw.data,data_file_raw=on \
                     raw.qcow2 "${size[$1]}"
            qemu-img bitmap --add -g 64K raw.qcow2 b ;;
        plain)
            cluster[$1]=16384; size[$1]=12585472
            qemu-img create -q -f raw base.raw 8M
            scribble_raw base.raw
            qemu-img create -q -f qcow2 \
                     -o data_file=plain.data,cluster_size=16K,extended_l2=on \
                     -b base.raw -F raw plain.qcow2 "${size[$1]}" ;;
        *) fail "there is no image $1" ;;
    esac
    # Most of it is full, so that the files have the size that they stay at.
    qemu-io -f qcow2 -c "write -q -P 0x5a 0 $((size[$1] / 8 * 7 / 512 * 512))" \
            "$1.qcow2"
    qemu-img convert -f qcow2 -O raw "$1.qcow2" "$1.model"
}

scribble_raw ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$SOAK_SEED" \
              --count 30 --size 8388608 | qemu-io -f raw "$1" > /dev/null
}

# An idle client is there while the image is settled, and clean.
idle ()
{
    local pid
    nbdsh -u "$(uri "$1")" -c '
import os, sys, time
h.pwrite (h.pread (4096, 8192), 8192)
open ("idle", "w")
while os.path.exists ("idle"):
    time.sleep (0.05)
' &
    pid=$!
    while [ ! -e idle ]; do
        _running $pid || fail "the idle client ended"
        sleep 0.05
    done
    for ((i = 0; i < 200; i++)); do
        ! qemu-img check -q -U -f qcow2 "$1.qcow2" > check.out 2>&1 || break
        sleep 0.1
    done
    [ $i -lt 200 ] || { cat check.out; fail "$1 does not settle"; }
    rm idle
    wait $pid
}

# NAME TIME RSS FDS THREADS IMAGE-KIB DATA-KIB
: > samples
sample ()
{
    local pid data=0
    pid=$(< "$1.pid")
    [ ! -e "$1.data" ] || data=$(du -k "$1.data" | cut -f1)
    echo "$1 $((SECONDS - begin))" \
         "$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")" \
         "$(find "/proc/$pid/fd" -type l | wc -l)" \
         "$(find "/proc/$pid/task" -mindepth 1 -maxdepth 1 | wc -l)" \
         "$(($(stat -c %s "$1.qcow2") / 1024)) $data" >> samples
}

# A line on each server as it is now.
show ()
{
    local name
    for name in "${images[@]}"; do
        awk -v name="$name" -v rounds="${rounds[$name]}" '
            $1 == name { line = $0 }
            END { split (line, f)
                  printf "%6d s  %-9s %5d rounds  %7d KiB resident %3d fds " \
                         "%3d threads  image %6d KiB  data %6d KiB\n",
                         f[2], name, rounds, f[3], f[4], f[5], f[6], f[7] }
        ' samples
    done
}

preload=
[ -z "$SOAK_PLANT" ] ||
    preload=$abs_top_builddir/tests/preload/.libs/soak-plant.so

declare -A rounds
for name in "${images[@]}"; do
    make_image "$name"
    rounds[$name]=0
    LD_PRELOAD=$preload SOAK_PLANT=$SOAK_PLANT \
        serve "$name" --filter="$qcow2ext" file "$name.qcow2"
done

begin=$SECONDS
next_line=60
seed=$SOAK_SEED
n=0
while [ $((SECONDS - begin)) -lt "$SOAK_SECONDS" ] &&
      [ $n -lt "${SOAK_ROUNDS:-999999999}" ]; do
    name=${images[n % ${#images[@]}]}
    n=$((n + 1))
    seed=$((seed + 1))
    round_begin=$(date +%s%N)
    mv "$name.model" before.raw
    stress "$(uri "$name")" --seed "$seed" --ops 400 --phases 2 \
           --cluster "${cluster[$name]}" --connections $((1 + RANDOM % 4)) \
           --model-in before.raw --model-out "$name.model" > stress.out ||
        { cat stress.out; fail "$name, seed $seed"; }
    rounds[$name]=$((rounds[$name] + 1))
    clean "$name.qcow2"
    identical "$name.model" "$name.qcow2"
    [ "$name" != raw ] || same_file raw.model raw.data
    # As a program would that leaves something behind.
    [ "$SOAK_PLANT" != file ] || truncate -s +8M "$name.qcow2"
    sample "$name"
    case $((rounds[$name] % 16)) in
        5) "$PYTHON" "$lib/drop-clients.py" \
                     "$tmp/$name.sock" negotiation ;;
        11) idle "$name" ;;
    esac
    if [ $((SECONDS - begin)) -ge $next_line ]; then
        show
        next_line=$((next_line + 60))
    fi
    sleep "$(awk -v ns=$(($(date +%s%N) - round_begin)) -v duty="$SOAK_DUTY" \
                 'BEGIN { print ns / 1e9 * (100 / duty - 1) }')"
done
show

for name in "${images[@]}"; do
    stop "$name"
    clean "$name.qcow2"
    identical "$name.model" "$name.qcow2"
done

# Highest values of the second and of the last third, and how much more is
# too much.
awk -v slack="$SOAK_SLACK" '
function max(a, b) { return a > b ? a : b }
BEGIN {
    fields = split ("- - resident-KiB fds threads image-KiB data-KiB", what)
    factor[3] = 1.05; more[3] = slack
    factor[4] = 1;    more[4] = 1
    factor[5] = 1;    more[5] = 1
    factor[6] = 1.02; more[6] = slack
    factor[7] = 1.02; more[7] = slack
}
{
    count[$1]++
    for (i = 3; i <= fields; i++)
        sample[$1, count[$1], i] = $i
}
END {
    for (name in count) {
        n = count[name]
        if (n < 6) {
            print "soak: " name ": too few samples"
            bad = 1
        }
        for (i = 3; i <= fields; i++) {
            middle = last = 0
            for (j = int (n / 3) + 1; j <= n; j++)
                if (j <= int (2 * n / 3))
                    middle = max(middle, sample[name, j, i])
                else
                    last = max(last, sample[name, j, i])
            grows = last > factor[i] * middle + more[i]
            bad = bad || grows
            printf "soak: %-9s %-13s %8d, in the last third %8d: %s\n",
                   name, what[i], middle, last, grows ? "GROWS" : "flat"
        }
    }
    exit bad
}' samples || fail "something grows"
echo "soak: fine"
