# shellcheck shell=bash disable=SC2154,SC2034
# What the tests share in which a server or its clients end under load; sourced
# after writing.sh.
#
# QCOW2EXT_TEST_LONG=N makes ten times N times as many rounds, with fresh seeds.

requires qemu-img --version
requires_nbd_module

load_kinds=(internal extended backing lazy plain raw unmapped bitmaps
            bitmaps-raw compress)
load_rounds=${load_rounds:-3}
load_seed=4711
if [ "$QCOW2EXT_TEST_LONG" -gt 0 ]; then
    load_rounds=$((load_rounds * 10 * QCOW2EXT_TEST_LONG))
    load_seed=$RANDOM$RANDOM
fi
# How many requests a client has in flight where the server is not killed.
# nbdkit 1.32 itself may fail an assertion when a connection ends that has
# several.
load_depth=6
case $(nbdkit --version) in
    *\ 1.32.*) load_depth=1 ;;
esac
echo "seed $load_seed"
RANDOM=$load_seed

# load_image KIND: a new x.qcow2

load_image ()
{
    local size=1536K
    { echo "=== $1"; } 2>/dev/null
    rm -f x.qcow2 x.data
    case $1 in
        internal) set -- -o cluster_size=4K x.qcow2 $size ;;
        extended) set -- -o cluster_size=64K,extended_l2=on x.qcow2 $size ;;
        backing)
            head -c 1000000 /dev/urandom > b.raw
            set -- -b b.raw -F raw x.qcow2 $size ;;
        compress)
            set -- -o compression_type=zstd,cluster_size=1K x.qcow2 $size ;;
        lazy) set -- -o lazy_refcounts=on,cluster_size=512 x.qcow2 $size ;;
        plain) set -- -o data_file=x.data x.qcow2 $size ;;
        raw) set -- -o data_file=x.data,data_file_raw=on x.qcow2 $size ;;
        unmapped)
            mkimage x.qcow2 --size 1536K --cluster-bits 12 \
                    --data-file x.data --raw --data-file-out x.data
            truncate -s $size x.data
            return ;;
        bitmaps) set -- x.qcow2 $size ;;
        bitmaps-raw)
            set -- -o data_file=x.data,data_file_raw=on,cluster_size=4K \
                x.qcow2 $size ;;
    esac
    qemu-img create -q -f qcow2 "$@"
}

# start_load KIND ARGS...: serve x.qcow2 to three clients, as load.py does with
# ARGS, and let them work for a while.

start_load ()
{
    local kind=$1 n arguments=()
    shift
    rm -f note* bitmap.json
    case $kind in
        bitmaps*)
            qemu-img bitmap --remove x.qcow2 b 2> /dev/null || true
            qemu-img bitmap --add -g 4096 x.qcow2 b
            qemu-img convert -f qcow2 -O raw x.qcow2 before.raw ;;
    esac
    [ "$kind" != compress ] || arguments=(qcow2ext-compress=true)
    serve s --filter="$qcow2ext" file x.qcow2 "${arguments[@]}"
    clients=()
    for n in 0 1 2; do
        "$PYTHON" "$lib/load.py" client "$(uri s)" $n \
                  "$RANDOM" "$@" &
        clients+=($!)
        cleanup_fn _kill_pid $!
    done
    for n in 0 1 2; do
        while [ ! -e note$n ]; do
            _running "${clients[n]}" || fail "a client ended"
            sleep 0.02
        done
    done
    sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
}

# judge_load KIND: everything that must be there is there.
#
# In a raw data file a cluster that was not mapped may hold what was not yet
# flushed when the server was killed, while the guest sees zeros; with "killed",
# nobody looks there.

judge_load ()
{
    local bitmap=()
    qemu-img convert -f qcow2 -O raw x.qcow2 now.raw
    case $* in
        *killed) ;;
        raw | unmapped | bitmaps-raw) same_file now.raw x.data ;;
    esac
    case $1 in
        bitmaps*)
            # One that is marked as in use cannot be shown: nobody believes it.
            if nbdkit -r -U - --filter="$qcow2ext" file x.qcow2 \
                      qcow2ext-bitmap=b \
                      --run 'nbdinfo --map --json "$uri" > bitmap.json' \
                      2> bitmap.err; then
                bitmap=(bitmap.json before.raw)
            else
                grep -q inconsistent bitmap.err || fail "the bitmap is lost"
            fi ;;
    esac
    "$PYTHON" "$lib/load.py" judge now.raw "${bitmap[@]}" ||
        fail "$1, round $round"
}
