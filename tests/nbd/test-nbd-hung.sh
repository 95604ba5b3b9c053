#!/usr/bin/env bash
# The server of the data file hangs: ours ends all the same when it is told to,
# whatever it waits for.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"

cat > client.py <<'END'
import nbd, os, signal, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
what, far = sys.argv[2], int (sys.argv[3])
h.pwrite (b"1" * 65536, 0)
if what != "settle":
    h.flush ()
    os.kill (far, signal.SIGSTOP)
if what == "read":
    h.aio_pread (nbd.Buffer (4096), 0)
elif what == "large":
    # More than the connection takes.
    for i in range (8):
        h.aio_pwrite (b"2" * (8 << 20), i * (8 << 20))
elif what == "flush":
    os.kill (far, signal.SIGCONT)
    h.pwrite (b"2" * 65536, 1 << 20)
    os.kill (far, signal.SIGSTOP)
    h.aio_flush ()
elif what == "settle":
    # There is nothing under way but what is yet to be flushed.
    os.kill (far, signal.SIGSTOP)
while h.aio_in_flight () and h.aio_get_direction () & nbd.AIO_DIRECTION_WRITE \
      and what != "large":
    h.poll (-1)
h.poll (500)
with open ("ready", "w") as f:
    f.write (what)
if what in ("read", "large"):
    # nbdkit waits for clients that stay: this one does until it has answers.
    try:
        while h.aio_in_flight ():
            h.poll (-1)
    except nbd.Error:
        pass
END

for what in read large flush settle connect; do
    new_image -o data_file=x.data,data_file_raw=on x.qcow2 64M
    serve far file x.data
    serve_log s -v --filter="$qcow2ext" file x.qcow2 \
              qcow2ext-data-file="$(uri far)"
    pid=$(cat far.pid)
    cleanup_fn eval "kill -CONT $pid 2>/dev/null || :"
    rm -f ready
    if [ $what = connect ]; then
        kill -STOP "$pid"
        nbdinfo "$(uri s)" > /dev/null 2>&1 &
        client=$!
        wait_until "the image is opened" grep -q 'qcow2ext: open' s.log
    else
        "$PYTHON" client.py "$(uri s)" $what "$pid" &
        client=$!
        wait_until "the client comes that far" [ -s ready ]
    fi
    stop s
    grep -v debug: s.log || :
    wait $client || :
    kill -CONT "$pid"
    stop far
    no_errors
done
