#!/usr/bin/env bash
# A second writer is refused, whichever of QEMU and nbdkit comes first; readers
# do not mind each other; qcow2ext-lock=false turns it off.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires qemu-nbd --version
requires_nbd_module
cd "$tmp"

# hold NAME: a client that stays connected.
hold ()
{
    "$PYTHON" -m nbd -u "$(uri "$1")" -c 'open ("held", "w").close ()' \
          -c 'import time; time.sleep (600)' &
    holder=$!
    cleanup_fn _kill_pid "$holder"
    wait_until "a client is connected to $1" [ -e held ]
    rm held
}

# let_go: no client any more.
let_go ()
{
    _kill_pid "$holder"
    wait_until "the lock is dropped" qemu-io -f qcow2 -c 'read 0 512' x.qcow2
}

other_nbdkit ()
{
    nbdkit "$@" -U - --filter="$qcow2ext" file x.qcow2 --run \
           'nbdinfo --size "$uri"'
}

write_qemu () { qemu-io -f qcow2 -c 'write 0 512' x.qcow2; }
read_qemu () { qemu-io -r -f qcow2 -c 'read 0 512' x.qcow2; }

for opts in cluster_size=64K data_file=x.data \
            "data_file=x.data,data_file_raw=on"; do
    new_image -o "$opts" x.qcow2 4M

    # We are the writer.
    serve w --filter="$qcow2ext" file x.qcow2
    write_qemu
    hold w
    expect_fail lock write_qemu
    expect_fail lock read_qemu
    expect_fail lock qemu-img check -f qcow2 x.qcow2
    expect_fail . other_nbdkit
    expect_fail . other_nbdkit -r
    nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false \
           --run 'nbdinfo --size "$uri"'
    case $opts in
        *data*) expect_fail lock qemu-io -f raw -c 'write 0 512' x.data ;;
    esac
    # A second client of the same server.
    nbdinfo --size "$(uri w)"
    let_go
    write_qemu
    stop w

    # We are a reader.
    serve r -r --filter="$qcow2ext" file x.qcow2
    hold r
    expect_fail lock write_qemu
    read_qemu
    other_nbdkit -r
    expect_fail . other_nbdkit
    let_go
    stop r

    # QEMU is the writer, then a reader.
    for mode in write read; do
        rm -f q.sock
        args=()
        [ $mode = write ] || args=(-r)
        qemu-nbd -t "${args[@]}" -f qcow2 -k "$tmp/q.sock" x.qcow2 &
        pid=$!
        cleanup_fn _kill_pid "$pid"
        wait_until "qemu-nbd listens" [ -S q.sock ]
        expect_fail . other_nbdkit
        if [ $mode = write ]; then
            expect_fail . other_nbdkit -r
        else
            other_nbdkit -r
        fi
        nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false \
               --run 'nbdinfo --size "$uri"'
        _kill_pid "$pid"
    done
    other_nbdkit

    # Without locks nobody is kept out.
    serve n --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false
    hold n
    read_qemu
    other_nbdkit
    let_go
    stop n
done
