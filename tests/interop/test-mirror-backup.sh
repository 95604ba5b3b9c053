#!/usr/bin/env bash
# QEMU's block jobs write to us: a full backup, an incremental one on top of it,
# and a mirror to which the users of the disk change over.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-storage-daemon --version
requires_nbd_module
cd "$tmp"

# io SEED: random changes of the disk, through the storage daemon.  What a
# discard leaves behind is not the same everywhere.
io ()
{
    "$PYTHON" "$lib/qemu-io-ops.py" --seed "$1" \
              --size $((16 << 20)) | grep -v discard > "ops$1"
    qemu-io -f raw "$(uri d)" < "ops$1" > io.log
    ! grep -i 'error\|failed' io.log || fail "qemu-io"
    qemu-io -f raw model.raw < "ops$1" > io.log
}

qmp ()
{
    "$PYTHON" "$lib/qmp.py" qmp.sock
}

for opts in cluster_size=64K "data_file=x.data,data_file_raw=on"; do
    qemu-img create -q -f qcow2 source.qcow2 16M
    rm -f model.raw
    truncate -s 16M model.raw
    qemu-img create -q -f qcow2 mirror.qcow2 16M
    new_image -o "$opts" x.qcow2 16M
    # What is in the way must go.
    qemu-io -f qcow2 -c 'write -q -P 1 0 16M' x.qcow2
    qemu-io -f qcow2 -c 'write -q -P 2 0 16M' mirror.qcow2

    serve backup --filter="$qcow2ext" file x.qcow2
    serve mirror --filter="$qcow2ext" file mirror.qcow2
    storage_daemon \
        --chardev socket,id=qmp,path=qmp.sock,server=on,wait=off \
        --monitor chardev=qmp \
        --blockdev file,node-name=file,filename=source.qcow2 \
        --blockdev qcow2,node-name=disk,file=file,discard=unmap \
        --blockdev "nbd,node-name=backup,discard=unmap,server.type=unix,server.path=$tmp/backup.sock" \
        --blockdev "nbd,node-name=mirror,discard=unmap,server.type=unix,server.path=$tmp/mirror.sock" \
        --nbd-server "addr.type=unix,addr.path=$tmp/d.sock,max-connections=8" \
        --export nbd,id=e,node-name=disk,name=,writable=on

    io 1
    qmp <<'END'
block-dirty-bitmap-add node=disk name=changes
blockdev-backup job-id=full device=disk target=backup sync=full auto-dismiss=false
concluded full
END
    io 2
    qmp <<'END'
blockdev-backup job-id=inc device=disk target=backup sync=incremental bitmap=changes auto-dismiss=false
concluded inc
blockdev-mirror job-id=m device=disk target=mirror sync=full auto-dismiss=false
ready m
END
    cp model.raw backup.raw
    # Written twice by now, and after the change only to us.
    io 3
    qmp <<'END'
job-complete id=m
concluded m
END
    cp model.raw source.raw
    io 4
    stop d
    stop backup
    stop mirror

    clean
    identical backup.raw
    clean mirror.qcow2
    identical model.raw mirror.qcow2
    identical source.raw source.qcow2
done
same_file backup.raw x.data
