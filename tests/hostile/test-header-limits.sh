#!/usr/bin/env bash
# Each limit of the header: an image at the limit is served, one past it is
# refused when nbdkit starts, with a message that names the thing.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
cd "$tmp"

# ok ARGS... is what QEMU accepts, too; bad REGEX ARGS... is not.
ok ()
{
    echo "=== $*"
    mkimage x.qcow2 "$@"
    qemu-img info x.qcow2 > /dev/null || fail "QEMU refuses: $*"
    accepted file x.qcow2
}

bad ()
{
    local pattern=$1
    shift
    echo "=== $*"
    mkimage x.qcow2 "$@"
    refused "$pattern" file x.qcow2
}

# Version and geometry.
bad 'version' --set version=0
bad 'version' --set version=1
bad 'version' --set version=4
bad 'version' --set version=0xffffffff
ok --version 2
for bits in 9 21; do
    ok --cluster-bits $bits --data 0=1
done
for bits in 0 8 22 32 63 0xffffffff; do
    bad 'cluster' --set cluster_bits=$bits
done
ok --cluster-bits 14 --extended-l2 --data 0=1
bad 'subcluster|extended L2' --cluster-bits 13 --extended-l2

# The length of the header.
ok --header-length 104
ok --header-length 512 --cluster-bits 9
bad 'header' --set header_length=103
bad 'header' --set header_length=72
bad 'header' --set header_length=0
bad 'header' --set header_length=0xffffffff
bad 'header' --set header_length=65544
bad 'header' --cluster-bits 9 --set header_length=520

# Reference counts.
ok --refcount-order 0
ok --refcount-order 6
bad 'refcount' --set refcount_order=7
bad 'refcount' --set refcount_order=0xffffffff
bad 'refcount' --set refcount_table_clusters=0
ok --set refcount_table_clusters=128 --truncate 20M
bad 'refcount' --set refcount_table_clusters=129
bad 'refcount' --set refcount_table_clusters=0xffffffff
bad 'refcount' --set refcount_table_offset=512
bad 'refcount' --set refcount_table_offset=0x7fffffffffff0000
bad 'refcount' --set refcount_table_offset=0xffffffffffff0000

# L1.
ok --set l1_size=8192 --truncate 2M
ok --set l1_size=4194304 --truncate 40M
bad 'L1' --set l1_size=4194305
bad 'L1' --set l1_size=0xffffffff
bad 'L1' --set l1_size=0
bad 'L1' --size 1T --set l1_size=2047
ok --size 1T
bad 'L1' --set l1_table_offset=512
bad 'L1' --set l1_table_offset=0x7fffffffffff0000 --set l1_size=0x10000
bad 'L1' --set l1_table_offset=0xffffffffffff0000
bad 'L1|size' --set size=0x7fffffffffffffff
bad 'L1|size' --set size=0x8000000000000000
bad 'L1|size' --set size=0xffffffffffffffff

# Snapshots.
bad 'snapshot' --set nb_snapshots=65537
bad 'snapshot' --set nb_snapshots=0xffffffff
bad 'snapshot' --data 0=1 --snapshot 1:one --set snapshots_offset=512
bad 'snapshot' --data 0=1 --snapshot 1:one \
    --set snapshots_offset=0xffffffffffff0000

# Feature bits.
ok --compatible 0xfffffffffffffffe
ok --autoclear 0xfffffffffffffffc
bad 'feature|incompatible' --incompatible 0x20
bad 'feature|incompatible' --incompatible 0x8000000000000000
# ... which the image itself may name.
name=$(printf 'frobnicate' | od -An -tx1 | tr -d ' \n')
bad 'frobnicate' --incompatible 0x40 \
    --ext "0x6803f857=0006$name$(printf '%072d' 0)"

# Compression: the field and the bit must agree.
ok --compression zstd
bad 'compression' --set compression_type=1
bad 'compression' --compression zstd --set compression_type=0
bad 'compression' --compression zstd --set compression_type=2
bad 'compression' --compression zstd --set compression_type=255
bad 'compression' --set header_length=104 --incompatible 8

# Encryption is refused by its name.
bad 'AES' --set crypt_method=1
bad 'LUKS' --set crypt_method=2
bad 'encrypt|crypt' --set crypt_method=3

# Extensions end before the backing file's name or the end of the cluster.
ok --ext 0x12345678=0102030405060708
ok --ext 0x12345678= --ext 0x12345679=01
ok --cluster-bits 9 --ext "0x12345678=$(printf '%0768d' 0)"
bad 'extension' --ext 0x12345678=01:65536
bad 'extension' --ext 0x12345678=01:0x7fffffff
bad 'extension' --ext 0x12345678=01:0xfffffff8
bad 'extension' --ext 0x12345678=01:0xffffffff
bad 'extension' --cluster-bits 9 --ext 0x12345678=01:400
bad 'extension' --ext 0x12345678=01:64 --backing b.raw --backing-format raw

# Names.
long=$(printf '%01023d' 0)
bad 'backing|name' --set backing_file_offset=65530 --set backing_file_size=100
bad 'backing|name' --set backing_file_offset=0xffffffffffffff00 \
    --set backing_file_size=10
bad 'backing|name' --set backing_file_offset=200 \
    --set backing_file_size=0xffffffff
bad 'backing|name|1023' --backing "${long}0" --backing-format raw
bad 'data.file.*name|name.*data.file|1023' --data-file "${long}0"
bad 'data.file.*name|name.*data.file|empty' --data-file ""
bad 'data.file|name|NUL' --incompatible 4 --ext 0x44415441=610062
# At the limit it is a proper name, of a file that does not exist.  A
# component ends after 255 bytes at the latest.
long=$(printf '%0200d/' 1 2 3 4 5)
long=$long$(printf '%018d' 0)
[ ${#long} = 1023 ]
mkimage x.qcow2 --data-file "$long"
no_disk "$long" file x.qcow2

# Bitmaps: the extension counts only with its autoclear bit.
bitmaps () { printf '%08x00000000%016x%016x' "$@"; }
bad 'bitmap' --autoclear 1 --ext 0x23852875="$(bitmaps 65536 65536 65536)"
bad 'bitmap' --autoclear 1 \
    --ext 0x23852875="$(bitmaps 1 $((64 * 1024 * 1024 + 1)) 65536)"
bad 'bitmap' --autoclear 1 --ext 0x23852875="$(bitmaps 1 64 513)"
bad 'bitmap' --autoclear 1 --ext 0x23852875=0000
