# shellcheck shell=bash disable=SC2154,SC2034,SC2120,SC2119
# What the tests of encrypted images share; sourced after functions.sh.  They
# work in $tmp.  Some functions of writing.sh are replaced: QEMU needs the pass
# phrase for most of what it does with such an image.

# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"

requires qemu-img --version
requires grep -q '^#define HAVE_LIBGCRYPT 1' "$abs_top_builddir/build-config.h"

cd "$tmp" || exit

phrase='correct horse'
printf %s "$phrase" > "$tmp/phrase"
secret=(--object "secret,id=s,file=$tmp/phrase")
nbdkit_args+=(qcow2ext-passphrase=+"$tmp/phrase")

# The ciphers, as options for qemu-img create.
xts256=encrypt.cipher-alg=aes-256,encrypt.cipher-mode=xts
xts128=encrypt.cipher-alg=aes-128,encrypt.cipher-mode=xts
cbc='encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv'
cbc+=',encrypt.ivgen-hash-alg=sha256'
cbc256=encrypt.cipher-alg=aes-256,$cbc
cbc128=encrypt.cipher-alg=aes-128,$cbc

# new_encrypted CIPHER QEMU-IMG-CREATE-ARGS...: x.qcow2; CIPHER is a list of
# options.

new_encrypted ()
{
    { echo "=== $*"; } 2>/dev/null
    local cipher=$1
    shift
    rm -f x.qcow2 x.data
    make_luks qemu-img create -q -f qcow2 "${secret[@]}" \
              -o "encrypt.format=luks,encrypt.key-secret=s" \
              -o "encrypt.iter-time=10,$cipher" "$@"
}

# opts IMAGE: for --image-opts.

opts ()
{
    echo "driver=qcow2,encrypt.key-secret=s,file.driver=file,file.filename=$1"
}

clean ()
{
    local image=${1:-x.qcow2}
    qemu-img check "${secret[@]}" --image-opts "$(opts "$image")" \
             > "$tmp/check.out" 2>&1 || {
        cat "$tmp/check.out"
        fail "qemu-img check of $image is not clean"
    }
}

end_offset ()
{
    qemu-img check --output=json "${secret[@]}" --image-opts \
             "$(opts "${1:-x.qcow2}")" |
        sed -n 's/.*"image-end-offset": \([0-9]*\).*/\1/p'
}

identical ()
{
    local image=${2:-x.qcow2}
    qemu-img compare -q "${secret[@]}" --image-opts \
             "driver=raw,file.driver=file,file.filename=$1" \
             "$(opts "$image")" || fail "$image has not the content of $1"
}

# as_raw IMAGE RAW [CONVERT-ARGS...]: what QEMU reads.

as_raw ()
{
    local image=$1 raw=$2
    shift 2
    qemu-img convert "$@" "${secret[@]}" --image-opts "$(opts "$image")" \
             -O raw "$raw"
}

save_snapshots ()
{
    local image=x.qcow2 s
    for s; do
        as_raw "$image" "$tmp/snapshot-$s.raw" -l "snapshot.name=$s"
    done
}

same_snapshots ()
{
    local image=x.qcow2 s
    for s; do
        as_raw "$image" "$tmp/now.raw" -l "snapshot.name=$s"
        cmp "$tmp/snapshot-$s.raw" "$tmp/now.raw" ||
            fail "snapshot $s has changed"
    done
    rm -f "$tmp/now.raw"
}

# encrypted_io COMMANDS...: by qemu-io, on x.qcow2.

encrypted_io ()
{
    local c args=()
    for c; do
        args+=(-c "$c")
    done
    qemu-io -d unmap "${secret[@]}" --image-opts "$(opts x.qcow2)" \
            "${args[@]}" > /dev/null
}

scribble ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$1" --count "$2" --size "$3" |
        qemu-io -d unmap "${secret[@]}" --image-opts "$(opts x.qcow2)" \
                > /dev/null
}

# no_plain_text FILES...: nothing of what stress.py writes can be seen.

no_plain_text ()
{
    local f
    for f; do
        if LC_ALL=C grep -aEq '[0-9]{7}@[0-9a-f]{7}' "$f"; then
            fail "there is plain text in $f"
        fi
    done
}

# stress_encrypted KIND CLUSTER: x.qcow2, which QEMU has made, is written to by
# QEMU, by us, by QEMU, and read by us.

stress_encrypted ()
{
    local kind=$1 cluster=$2 files=(x.qcow2)
    [ ! -e x.data ] || files+=(x.data)
    scribble "$stress_seed" 20 "$size"
    as_raw x.qcow2 start.raw
    initial=start.raw
    stress_image "$kind" "$cluster"
    no_plain_text "${files[@]}"
    scribble $((stress_seed + 1)) 20 "$size"
    as_raw x.qcow2 model.raw
    served 'check_disk "$uri" model.raw --connections 4 --reads 40' \
           file x.qcow2 "${nbdkit_args[@]}"
}

# stress_all_ciphers FUNCTION CLUSTERS...: calls FUNCTION with each cipher and cluster
# size, in $cipher and $cluster, and the size of a disk that goes with them, in
# $size.  In short, each cipher has one of the sizes.

stress_all_ciphers ()
{
    local fn=$1 cipher cluster size nr=0 at
    shift
    stress_ops=$((stress_ops / 3))
    for cipher in "$xts256" "$xts128" "$cbc256" "$cbc128"; do
        at=0
        for cluster; do
            size=$(size_for "$cluster")
            if [ -z "$QCOW2EXT_TEST_SHORT" ] || [ $at -eq $((nr % $#)) ]; then
                "$fn"
            fi
            at=$((at + 1))
        done
        nr=$((nr + 1))
    done
}
