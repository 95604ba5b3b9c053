#!/usr/bin/env bash
# A client does not wait for what others leave behind: while the last flush of one
# takes its time, another connects to the same export, to a snapshot, lists what
# there is, writes and goes.  All that they wrote is there.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"
export FAIL_IO=$tmp/control

# Writes and goes, or stays until it is told to go.
cat > client.py <<'END'
import nbd, os, sys, time
uri, letter, at, stay = sys.argv[1:]
h = nbd.NBD ()
h.connect_uri (uri)
h.pwrite (letter.encode () * 65536, int (at) << 16)
open (letter + ".wrote", "w").close ()
while stay == "stay" and not os.path.exists ("go"):
    time.sleep (0.02)
h.shutdown ()
END

cat > joins.py <<'END'
import nbd, sys, time
begin = time.monotonic ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
assert h.pread (65536, 0) == b"a" * 65536
print ("connected and read in %.1f ms" % (1000 * (time.monotonic () - begin)))
h.shutdown ()
END

hold ()
{
    echo "fdatasync $file 0 0" > hold
    mv hold "$FAIL_IO"
}

for opts in cluster_size=64K data_file=x.data; do
    new_image -o $opts x.qcow2 4M
    file=x.data
    [ -e x.data ] || file=x.qcow2
    [ -e x.data ] || qemu-img snapshot -c one x.qcow2
    serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2 \
                    qcow2ext-exports=all
    for stay in go stay; do
        echo "=== $opts: the first one is to $stay"
        rm -f go ./*.wrote "$FAIL_IO"*
        # The flush of this one is that of its end, or the one that is made
        # when it has been idle.
        "$PYTHON" client.py "$(uri s)" a 0 stay &
        a=$!
        wait_until "a.wrote is there" [ -e a.wrote ]
        "$PYTHON" joins.py "$(uri s)"
        hold
        [ $stay = stay ] || : > go
        wait_until "the fault was met" [ -e "$FAIL_IO.met" ]

        # Each of these would wait for ever.
        timeout 120 "$PYTHON" joins.py "$(uri s)" || fail "waited"
        timeout 120 nbdinfo --list "$(uri s)" > /dev/null || fail "waited"
        [ -e x.data ] || timeout 120 nbdinfo --size \
            "nbd+unix:///snapshot:1?socket=$tmp/s.sock" || fail "waited for the disk"
        "$PYTHON" client.py "$(uri s)" b 1 go &
        b=$!
        wait_until "b.wrote is there" [ -e b.wrote ]
        # The last one to have written waits until all is on disk.
        if [ $stay = go ]; then
            sleep 0.2
            _running $b || fail "all was said to be done"
        fi
        ! qemu-img info -f qcow2 x.qcow2 > /dev/null 2>&1 || fail "not locked"

        rm "$FAIL_IO"
        : > go
        wait $a
        wait $b
        clean
        qemu-io -r -f qcow2 -c 'read -P 97 0 64k' -c 'read -P 98 64k 64k' \
                x.qcow2 | tee out
        ! grep -q failed out || fail "something is lost"
        qemu-io -f qcow2 -c 'write -z 0 128k' x.qcow2
    done
    stop s
    clean
done
