#!/usr/bin/env bash
# qemu-img convert, rebase and commit on images that we wrote to: a chain of an
# internal image over one over a pair.  The guest's disk stays what it is.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# write_to IMAGE SEED: model.raw becomes its content.
write_to ()
{
    serve s --filter="$qcow2ext" file "$1"
    stress "$(uri s)" --ops 200 --seed "$2" --size 8M \
           --model-in model.raw --model-out model.raw || fail "$1, seed $2"
    stop s
    clean "$1"
    cp model.raw "${1%.qcow2}.raw"
}

qemu-img create -q -f qcow2 -o data_file=b.data b.qcow2 8M
truncate -s 8M model.raw
write_to b.qcow2 1
qemu-img create -q -f qcow2 -F qcow2 -b b.qcow2 m.qcow2
write_to m.qcow2 2
qemu-img create -q -f qcow2 -o cluster_size=4K -F qcow2 -b m.qcow2 t.qcow2
write_to t.qcow2 3

# Convert the chain to something else, and back through us.
qemu-img convert -f qcow2 -O raw t.qcow2 out.raw
cmp t.raw out.raw
qemu-img convert -c -f qcow2 -O qcow2 t.qcow2 out.qcow2
identical t.raw out.qcow2
for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 8M
    writing 'qemu-img convert -n -f qcow2 -O raw t.qcow2 "$uri"' file x.qcow2
    clean
    identical t.raw
    qemu-img convert -f qcow2 -O vpc -o force_size=on x.qcow2 out.vpc
    qemu-img compare -f raw -F vpc t.raw out.vpc
done
same_file t.raw x.data

# Without the layer in the middle.
cp t.qcow2 r.qcow2
qemu-img rebase -f qcow2 -F qcow2 -b b.qcow2 r.qcow2
clean r.qcow2
identical t.raw r.qcow2
# Without any.
qemu-img rebase -f qcow2 -b '' r.qcow2
clean r.qcow2
identical t.raw r.qcow2
# We read both as QEMU does, and can go on with them.
cp t.raw model.raw
write_to r.qcow2 4

# The top goes into the middle, and this into the pair.
qemu-img commit -q -f qcow2 t.qcow2
clean t.qcow2
clean m.qcow2
identical t.raw m.qcow2
qemu-img commit -q -f qcow2 m.qcow2
clean b.qcow2
identical t.raw b.qcow2
cp t.raw model.raw
write_to b.qcow2 5
identical model.raw b.qcow2
