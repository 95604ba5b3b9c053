# shellcheck shell=bash disable=SC2154,SC2016,SC2119,SC2120
# What the tests of writing share; sourced after functions.sh.
#
# They work in $tmp, for QEMU takes the relative name of a data file from its
# current directory.  The image under test is x.qcow2, its data file x.data.
#
# QCOW2EXT_TEST_LONG=N in the environment makes the stress tests N times as
# long, with fresh seeds; with QCOW2EXT_TEST_SHORT, as 'make check' sets it, they
# are a fifth as long.

: "${QCOW2EXT_TEST_LONG:=0}"

stress_seed=4711
stress_ops=1000
if [ "$QCOW2EXT_TEST_LONG" -gt 0 ]; then
    stress_seed=$RANDOM$RANDOM
    stress_ops=$((stress_ops * 3))
fi

if [ -n "$QCOW2EXT_TEST_UNDER$QCOW2EXT_TEST_SHORT" ]; then
    stress_ops=$((stress_ops / 5))
fi

# stress URI ARGS...

stress ()
{
    timeout -k 5 600 "$PYTHON" "$lib/stress.py" "$@"
}

# writing COMMAND NBDKIT-ARGS...
#
# Serve for writing as long as the shell's COMMAND runs, which uses "$uri".
# The result is COMMAND's, or nbdkit's own if that is bad.

writing ()
{
    local command=$1
    shift
    timeout -k 5 600 nbdkit -U - --filter="$qcow2ext" "$@" --run "$command"
}

# serve_preloaded LIBRARY NAME ARGS...
#
# Like 'serve', with one of our libraries before the C library.

serve_preloaded ()
{
    # Only for nbdkit if a checker is to be preloaded first.
    local preload=LD_PRELOAD library=$abs_top_builddir/tests/preload/.libs/$1.so
    shift
    [ -z "$QCOW2EXT_TEST_UNDER" ] || preload=UNDER_PRELOAD
    [ -e "$library" ] || fail "$library has not been built"
    export "$preload=$library"
    serve "$@"
    unset "$preload"
}

# storage_daemon ARGS...
#
# Start qemu-storage-daemon, which listens on $tmp/d.sock; 'uri d' and 'stop d'
# work as for a server of ours.

storage_daemon ()
{
    rm -f "$tmp/d.pid" "$tmp/d.sock"
    cleanup_fn _kill_pidfile "$tmp/d.pid"
    timeout 60 qemu-storage-daemon --daemonize --pidfile "$tmp/d.pid" "$@"
    [ -S "$tmp/d.sock" ] || fail "qemu-storage-daemon does not listen"
}

# clean [IMAGE [QEMU-IMG-CHECK-ARGS...]]
#
# 'qemu-img check' must find neither errors nor leaks.

clean ()
{
    local image=${1:-x.qcow2}
    shift || true
    qemu-img check -f qcow2 "$@" "$image" > "$tmp/check.out" 2>&1 || {
        cat "$tmp/check.out"
        fail "qemu-img check of $image is not clean"
    }
}

# no_errors [IMAGE]: leaks are allowed.

no_errors ()
{
    local image=${1:-x.qcow2} status=0
    qemu-img check -f qcow2 "$image" > "$tmp/check.out" 2>&1 || status=$?
    case $status in
        0 | 3) ;;
        *) cat "$tmp/check.out"
           fail "qemu-img check of $image finds errors" ;;
    esac
}

# end_offset [IMAGE]: of what the image uses, says 'qemu-img check'.

end_offset ()
{
    qemu-img check -f qcow2 --output=json "${1:-x.qcow2}" |
        sed -n 's/.*"image-end-offset": \([0-9]*\).*/\1/p'
}

# identical RAW [IMAGE]
#
# QEMU must read from the image what is in RAW.  It knows only whole sectors.

identical ()
{
    local raw=$1 image=${2:-x.qcow2} size
    size=$(stat -c %s "$raw")
    if [ $((size % 512)) -ne 0 ]; then
        head -c $((size / 512 * 512)) "$raw" > "$tmp/whole.raw"
        raw=$tmp/whole.raw
    fi
    qemu-img compare -q -f raw -F qcow2 "$raw" "$image" ||
        fail "$image has not the content of $1"
}

# same_file RAW DATA-FILE
#
# A raw data file is the disk, but for zeros that it lacks at its end, and for
# a longer one that has more.

same_file ()
{
    local size file
    size=$(stat -c %s "$1")
    file=$(stat -c %s "$2")
    if [ "$file" -lt "$size" ]; then
        cp --sparse=always "$2" "$tmp/padded"
        truncate -s "$size" "$tmp/padded"
        cmp "$1" "$tmp/padded" || fail "$2 is not the disk"
        rm "$tmp/padded"
    else
        cmp -n "$size" "$1" "$2" || fail "$2 is not the disk"
    fi
}

# save_snapshots NAMES..., same_snapshots NAMES...
#
# What internal snapshots have does not change by writing to the disk.

save_snapshots ()
{
    local image=x.qcow2 s
    for s in "$@"; do
        qemu-img convert -l snapshot.name="$s" -f qcow2 -O raw "$image" \
                 "$tmp/snapshot-$s.raw"
    done
}

same_snapshots ()
{
    local image=x.qcow2 s
    for s in "$@"; do
        qemu-img convert -l snapshot.name="$s" -f qcow2 -O raw "$image" \
                 "$tmp/now.raw"
        cmp "$tmp/snapshot-$s.raw" "$tmp/now.raw" ||
            fail "snapshot $s has changed"
    done
    rm -f "$tmp/now.raw"
}

# stress_image KIND CLUSTER [STRESS-ARGS...]
#
# $stress_rounds rounds on x.qcow2, whose KIND is internal, plain (with a data
# file), raw or stale (raw, but it need not be the disk where nobody has
# written yet).  The second one begins with what the first one left.  All are
# checked while the server is still there, but no client.
#
# $nbdkit_args are further arguments for nbdkit; $subclusters is how many a
# cluster has; $initial is the content in
# the beginning, if QEMU reads less than all of it; $untouched are files that
# must not change; $snapshots neither.

nbdkit_args=(${QCOW2EXT_TEST_DIRECT:+qcow2ext-direct=true})
stress_rounds=2
subclusters=1
initial=
untouched=()
snapshots=()

stress_image ()
{
    local kind=$1 cluster=$2 rounds=$stress_rounds round before end
    shift 2
    if [ "$QCOW2EXT_TEST_LONG" -gt 0 ]; then
        rounds=$((rounds * QCOW2EXT_TEST_LONG))
    fi
    if [ -n "$initial" ]; then
        cp "$initial" model.raw
    else
        qemu-img convert -f qcow2 -O raw x.qcow2 model.raw
    fi
    save_snapshots "${snapshots[@]}"
    : > untouched.sums
    [ ${#untouched[@]} -eq 0 ] || sha256sum "${untouched[@]}" > untouched.sums
    [ "$kind" != stale ] || cp x.data stale.data

    serve_log stressed --filter="$qcow2ext" file x.qcow2 "${nbdkit_args[@]}"
    for ((round = 0; round < rounds; round++)); do
        before=$(stat -c %s x.qcow2)
        cp model.raw before.raw
        stress_seed=$((stress_seed + 1))
        stress "$(uri stressed)" --seed "$stress_seed" --ops "$stress_ops" \
               --cluster "$cluster" --model-in before.raw \
               --model-out model.raw "$@" || {
            cat stressed.log
            fail "round $round, seed $stress_seed"
        }
        clean
        identical model.raw
        case $kind in
            raw) same_file model.raw x.data ;;
            stale) "$PYTHON" - "$((cluster / subclusters))" <<'EOF' || fail "x.data is wrong" ;;
import sys
# Each cluster, or subcluster, is what the guest sees there, or untouched.
cluster = int (sys.argv[1])
now, model, old = [open (f, "rb").read ()
                   for f in ("x.data", "model.raw", "stale.data")]
for i in range (0, len (model), cluster):
    j = min (i + cluster, len (model))
    if now[i:j] != model[i:j] and (now[i:j] != old[i:j] or any (model[i:j])):
        sys.exit ("x.data is not the disk at %#x" % i)
EOF
        esac
        [ ${#untouched[@]} -eq 0 ] || sha256sum -c --quiet untouched.sums
        same_snapshots "${snapshots[@]}"
        end=$(end_offset)
        # Nothing beyond what is used, unless it was there already.
        [ "$(stat -c %s x.qcow2)" -le $((before > end ? before : end)) ] ||
            fail "x.qcow2 has $(stat -c %s x.qcow2) bytes, uses $end," \
                 "had $before"
        if [ $((round + 1)) -lt "$rounds" ] && [ $((round % 5)) -le 1 ]; then
            stop stressed
            serve_log stressed --filter="$qcow2ext" file x.qcow2 \
                  "${nbdkit_args[@]}"
        fi
    done
    stop stressed
    clean
    identical model.raw
}

# far_restart NBDKIT-ARGS...
#
# 'serve far', and a script ./restart that kills that server as hard as it
# gets, and starts it again.

far_restart ()
{
    local q
    serve far "$@"
    printf -v q '%q ' "$@"
    cat > restart <<EOF
#!/usr/bin/env bash
set -e
pid=\$(cat '$tmp/far.pid')
kill -9 "\$pid"
# Its connections are closed when its last thread has gone; the first one may
# stay as a zombie.
while kill -0 "\$pid" 2>/dev/null &&
      ! { grep -q '^State:.Z' "/proc/\$pid/status" &&
          [ "\$(find "/proc/\$pid/task" -mindepth 1 -maxdepth 1 |
                 wc -l)" -eq 1 ]; } 2>/dev/null; do
    sleep 0.02
done
rm -f '$tmp/far.pid' '$tmp/far.sock'
nbdkit -P '$tmp/far.pid' -U '$tmp/far.sock' $q < /dev/null
for ((i = 0; i < 600; i++)); do
    [ ! -s '$tmp/far.pid' ] || exit 0
    sleep 0.02
done
exit 1
EOF
    chmod +x restart
}

# size_for CLUSTER: several L2 tables' worth of small clusters, and some large
# ones; never a whole number of clusters.

size_for ()
{
    case $1 in
        512) echo $((1024 * 1024 + 512 * 5)) ;;
        4096) echo $((9 * 1024 * 1024 + 512 * 5)) ;;
        16384) echo $((20 * 1024 * 1024 + 512 * 5)) ;;
        65536) echo $((12 * 1024 * 1024 + 512 * 5)) ;;
        *) echo $((15 * 1024 * 1024 + 512 * 5)) ;;
    esac
}

# new_image QEMU-IMG-CREATE-ARGS...: x.qcow2, with no file left from before.

new_image ()
{
    { echo "=== $*"; } 2>/dev/null
    rm -f x.qcow2 x.data
    qemu-img create -q -f qcow2 "$@"
}

# scribble SEED COUNT SIZE [IMAGE]: let QEMU write, zero and discard.

scribble ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$1" --count "$2" \
              --size "$3" |
        qemu-io -f qcow2 -d unmap "${4:-x.qcow2}" > /dev/null
}

# mount_small SIZE: a file system of that size, in $tmp/small.

mount_small ()
{
    mkdir "$tmp/small"
    requires unshare -m mount -t tmpfs -o "size=$1" none "$tmp/small"
    mount -t tmpfs -o "size=$1" none "$tmp/small"
    cleanup_fn umount "$tmp/small"
}
