# shellcheck shell=bash disable=SC2154,SC2016
# What the tests of reading share; sourced after functions.sh.
#
# They work in $tmp: QEMU takes the relative name of a data file from its
# current directory and the filter from the image's, and there they agree.


# check_disk: the helper as a command, for nbdkit's --run uses plain sh.
mkdir "$tmp/bin"
cat > "$tmp/bin/check_disk" <<'END'
#!/bin/sh
exec "$PYTHON" "$lib/check-disk.py" "$@"
END
chmod +x "$tmp/bin/check_disk"
PATH=$tmp/bin:$PATH

# served COMMAND NBDKIT-ARGS...
#
# Serve for reading as long as the shell's COMMAND runs, which uses "$uri".
# The result is COMMAND's, or nbdkit's own if that is bad.

served ()
{
    local command=$1
    shift
    timeout -k 5 120 nbdkit -r -U - --filter="$qcow2ext" "$@" \
            --run "$command"
}

# same IMAGE REFERENCE [NBDKIT-ARGS...] [-- CHECK-DISK-ARGS...]
#
# The image must read as the reference does, over several connections, and
# its map must not lie.

same ()
{
    local image=$1 command
    printf -v command '%q ' check_disk "$2"
    shift 2
    local args=()
    while [ $# -gt 0 ] && [ "$1" != "--" ]; do
        args+=("$1")
        shift
    done
    [ $# -eq 0 ] || shift
    [ $# -eq 0 ] || command+=$(printf '%q ' "$@")
    served "${command/check_disk /check_disk \"\$uri\" }" \
           file "$image" "${args[@]}"
}

# copied IMAGE [NBDKIT-ARGS...]
#
# nbdcopy and qemu-img compare.

copied ()
{
    local image=$1
    shift
    rm -f "$tmp/copied.raw"
    served 'nbdcopy "$uri" "$tmp/copied.raw"' file "$image" "$@"
    qemu-img compare -q -f raw -F qcow2 "$tmp/copied.raw" "$image" ||
        fail "the copy of $image differs"
    rm -f "$tmp/copied.raw"
}

# random_file FILE SIZE: incompressible, without a run of zeros, so that
# neither qemu-img nor the file system makes holes of it.

random_file ()
{
    head -c "$2" /dev/urandom > "$1"
}

# qemu_map IMAGE: as JSON.  QEMU looks for holes in a file that seems to be
# preallocated; to be asked for the map of the metadata alone it gets a copy
# without holes.

qemu_map ()
{
    cp --sparse=never "$1" "$tmp/full.qcow2"
    qemu-img map --output=json -f qcow2 "$tmp/full.qcow2"
    rm "$tmp/full.qcow2"
}

# matrix_case VERSION CLUSTER KIND L2: empty, filled, and written, zeroed and
# discarded here and there.

matrix_case ()
{
    local version=$1 cluster=$2 kind=$3 l2=$4 size opts contents within seed
    case $cluster in
        512) size=$((300 * 1024 + 1536)) ;;
        4096) size=$((5 * 1024 * 1024 + 512)) ;;
        *) size=$((9 * 1024 * 1024 + 3584)) ;;
    esac
    opts=compat=$version,cluster_size=$cluster
    [ "$l2" = plain ] || opts+=,extended_l2=on
    case $kind in
        data-file) opts+=,data_file=m.data ;;
        raw) opts+=,data_file=m.data,data_file_raw=on ;;
    esac
    for contents in empty filled mixed; do
        echo "=== $opts $contents"
        rm -f m.qcow2 m.data m.raw m.json
        qemu-img create -q -f qcow2 -o "$opts" m.qcow2 "$size"
        case $contents in
            filled)
                random_file m.src "$size"
                qemu-img convert -n -f raw -O qcow2 m.src m.qcow2 ;;
            mixed)
                seed=$RANDOM$RANDOM
                echo "seed $seed"
                "$PYTHON" "$lib/qemu-io-ops.py" --seed "$seed" \
                          --size "$size" |
                    qemu-io -f qcow2 -d unmap m.qcow2 > /dev/null ;;
        esac
        qemu-img convert -f qcow2 -O raw m.qcow2 m.raw
        qemu_map m.qcow2 > m.json
        within=()
        if [ "$kind" != internal ] && [ $contents != filled ]; then
            within=(--within)
        fi
        same m.qcow2 m.raw -- --qemu-map m.json "${within[@]}"
        copied m.qcow2
    done
}

# refused REGEX NBDKIT-ARGS...
#
# nbdkit must not start, and must say why.

refused ()
{
    local pattern=$1
    shift
    rm -f "$tmp/started"
    expect_fail "$pattern" timeout 60 nbdkit -r -U - --filter="$qcow2ext" \
                "$@" --run 'touch "$tmp/started"; exit 1'
    [ ! -e "$tmp/started" ] || fail "nbdkit started: $*"
}

# no_disk REGEX NBDKIT-ARGS...
#
# The same for what may as well be refused when the client comes.

no_disk ()
{
    local pattern=$1
    shift
    expect_fail "$pattern" timeout 60 nbdkit -r -U - --filter="$qcow2ext" \
                "$@" --run 'nbdinfo --size "$uri"'
}

# accepted NBDKIT-ARGS...: there is a disk.

accepted ()
{
    served 'nbdinfo --size "$uri"' "$@" > "$tmp/accepted.out" 2>&1 || {
        cat "$tmp/accepted.out"
        fail "should have been accepted: $*"
    }
}

# readable READS NBDKIT-ARGS...
#
# READS are words OFFSET:LENGTH=WHAT, as check-reads.py explains them.
# The server must survive them all.

readable ()
{
    local words command
    read -r -d '' -a words <<< "$1" || true
    printf -v command '%q ' "${words[@]}"
    shift
    served '"$PYTHON" "$lib/check-reads.py" "$uri" '"$command" "$@"
}

# below_images: the images that the tests of layers below share.  x.qcow2 is
# plain, z.qcow2 compressed, d.qcow2 has the data file d.data, o.qcow2 the
# backing file b.raw; all have the guest's disk ref.raw.

below_images ()
{
    mkimage x.qcow2 --size 4M --data 0-20=7 --zero 30 --data 50-63=9 \
            --reference ref.raw
    qemu-img convert -c -O qcow2 x.qcow2 z.qcow2
    mkimage d.qcow2 --size 4M --data-file d.data --data 0-20=7 --zero 30 \
            --data 50-63=9 --data-file-out d.data
    cp ref.raw b.raw
    dd if=/dev/urandom of=b.raw bs=64K seek=10 count=5 conv=notrunc status=none
    mkimage o.qcow2 --size 4M --backing b.raw --backing-format raw \
            --data 10-14=7
}

# same_over REFERENCE NBDKIT-ARGS...
#
# Four connections at once over some plugin with its arguments.

same_over ()
{
    local ref=$1
    shift
    echo "=== $*"
    served "check_disk \"\$uri\" $ref --connections 4 --reads 40" "$@"
}

# over NBDKIT-ARGS...
#
# All of below_images, with IMAGE among the arguments standing for the image's
# name.  What is not local needs its data and backing file by parameter.

over ()
{
    same_over ref.raw "${@//IMAGE/x.qcow2}"
    same_over ref.raw "${@//IMAGE/z.qcow2}"
    same_over ref.raw "${@//IMAGE/d.qcow2}" qcow2ext-data-file="$tmp/d.data"
    same_over ref.raw "${@//IMAGE/o.qcow2}" \
              qcow2ext-backing-file="$tmp/b.raw" qcow2ext-backing-format=raw
}

# mixed_file FILE SIZE: text, noise and zeros in turns of odd lengths.

mixed_file ()
{
    "$PYTHON" - "$@" <<'END'
import os, sys
path, size = sys.argv[1], int (sys.argv[2])
with open (path, "wb") as f:
    i = 0
    while f.tell () < size:
        n = 3000 + i * 7919 % 90001
        kind = i % 4
        if kind < 2:
            f.write (b"".join (b"line %d of %d\n" % (j, i)
                               for j in range (n // 16)))
        elif kind == 2:
            f.write (os.urandom (n))
        else:
            f.write (bytes (n))
        i += 1
    f.truncate (size)
END
}

# compressed_case TYPE OPTIONS: by qemu-img convert -c, then partly
# overwritten.  Maps must agree in both states.

compressed_case ()
{
    local opts=$2 size seed cluster i
    case $opts in
        *cluster_size=512*) size=$((300 * 1024 + 1536)) cluster=512 ;;
        *cluster_size=4096*) size=$((3 * 1024 * 1024 + 512)) cluster=4096 ;;
        *cluster_size=2097152*)
            size=$((9 * 1024 * 1024 + 3584)) cluster=2097152 ;;
        *) size=$((5 * 1024 * 1024 + 3584)) cluster=65536 ;;
    esac
    [ "$1" = zlib ] || opts+=,compression_type=$1
    echo "=== $opts"
    rm -f c.qcow2
    mixed_file c.raw $size
    qemu-img convert -c -f raw -O qcow2 -o "$opts" c.raw c.qcow2
    qemu_map c.qcow2 > c.json
    same c.qcow2 c.raw -- --qemu-map c.json
    copied c.qcow2

    # QEMU 7.2 goes on with compressed data in the cluster where it left off,
    # even if that has been discarded and another write has it since
    # (write -c 0 64k, discard 0 64k, write 64k 64k, write -c 128k 64k: the
    # third is lost).  Such an image is of no use here.
    cp c.qcow2 compressed.qcow2
    for ((i = 0; i < 10; i++)); do
        seed=$RANDOM$RANDOM
        echo "seed $seed"
        cp compressed.qcow2 c.qcow2
        "$PYTHON" "$lib/qemu-io-ops.py" --seed $seed --size $size --count 30 \
                  --compressed $cluster |
            qemu-io -f qcow2 -d unmap c.qcow2 > /dev/null || true
        ! qemu-img check -f qcow2 c.qcow2 > check.out 2>&1 || break
        cat check.out
    done
    [ "$i" -lt 10 ] || fail "QEMU has spoilt each of ten images"
    # (QEMU does not overwrite a cluster with a compressed one.)
    qemu-img convert -f qcow2 -O raw c.qcow2 c.raw
    qemu_map c.qcow2 > c.json
    same c.qcow2 c.raw -- --qemu-map c.json
}
