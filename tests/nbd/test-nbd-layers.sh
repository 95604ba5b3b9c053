#!/usr/bin/env bash
# A chain of a local overlay, a qcow2 image on an NBD server and a vmdk image
# behind qemu-nbd, with four connections, while the servers are killed and come
# back.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires qemu-nbd --version
requires_nbd_module
cd "$tmp"

size=$((24 << 20))
mkdir far
"$PYTHON" -c 'open ("base.raw", "wb").write (
    b"".join (b"%07d\n" % i * 8192 for i in range (320)))'
truncate -s $size base.raw
qemu-img convert -f raw -O vmdk base.raw far/base.vmdk
(
    cd far
    qemu-img create -q -f qcow2 -b base.vmdk -F vmdk middle.qcow2
    scribble 1 60 $size middle.qcow2
    qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 x.qcow2
    scribble 2 60 $size x.qcow2
    qemu-img convert -f qcow2 -O raw x.qcow2 ../model.raw
)
mv far/x.qcow2 .

# vmdk start|restart
cat > vmdk <<END
#!/usr/bin/env bash
set -e
if [ \$1 = restart ]; then
    kill -9 "\$(cat vmdk.pid)"
fi
rm -f vmdk.pid vmdk.sock
qemu-nbd -r -t -e 0 -f vmdk -k "$tmp/vmdk.sock" --pid-file="$tmp/vmdk.pid" \
         --fork far/base.vmdk > /dev/null 2>&1 < /dev/null
END
chmod +x vmdk
./vmdk start
cleanup_fn _kill_pidfile "$tmp/vmdk.pid"
far_restart -r file far/middle.qcow2

cat > client.py <<'END'
import nbd, random, subprocess, sys, threading
uri, times = sys.argv[1], 3
model = bytearray (open ("model.raw", "rb").read ())
N = 4
quarter = len (model) // N
failures = []

def connection (n):
    """Reads everywhere; writes to a quarter of its own."""
    try:
        r = random.Random (n)
        h = nbd.NBD ()
        h.connect_uri (uri)
        for i in range (60):
            length = r.randrange (1, 300000)
            at = n * quarter + r.randrange (quarter - length)
            if i % 4 == 0:
                data = r.randbytes (length)
                h.pwrite (data, at)
                model[at:at + length] = data
            elif h.pread (length, at) != model[at:at + length]:
                raise AssertionError ("%d bytes at %d differ" % (length, at))
        h.shutdown ()
    except Exception as e:
        failures.append (e)

keep = nbd.NBD ()
keep.connect_uri (uri)
for i in range (times):
    threads = [threading.Thread (target=connection, args=(n,))
               for n in range (N)]
    for t in threads:
        t.start ()
    if i > 0:
        # While they are at it.
        subprocess.check_call (["./vmdk", "restart"])
        subprocess.check_call (["./restart"])
    for t in threads:
        t.join ()
    assert not failures, failures
    subprocess.check_call (["./restart"])
    subprocess.check_call (["./vmdk", "restart"])
assert keep.pread (len (model) // 2, 0) == model[:len (model) // 2]
keep.flush ()
keep.shutdown ()
open ("model.raw", "wb").write (model)
END

layers=(qcow2ext-backing-file="$(uri far)"
        qcow2ext-backing-file="$(uri vmdk)"
        qcow2ext-backing-format=qcow2 qcow2ext-backing-format=raw)
serve_log s --filter="$qcow2ext" file x.qcow2 "${layers[@]}" \
          qcow2ext-allow=none
timeout 300 "$PYTHON" client.py "$(uri s)"
# Its map: not all of it is data.
nbdinfo --map "$(uri s)" > map
grep -q zero map || fail "no holes"
stop s
cat s.log
mv x.qcow2 far/
clean far/x.qcow2
identical model.raw far/x.qcow2
mv far/x.qcow2 .

# Servers that are not there, and one that does not answer, since it has a client
# already.
expect_fail 'given twice' nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
            qcow2ext-backing-file="$(uri far)" \
            qcow2ext-backing-file="$(uri far)" --run 'exit 0'
no_layer ()
{
    timeout 60 nbdkit -U - --filter="$qcow2ext" file x.qcow2 "$@" \
            --run 'nbdinfo --size "$uri"'
}
expect_fail 'cannot connect to the NBD server' no_layer \
            qcow2ext-backing-file="$(uri nobody)"
expect_fail 'nobody.*cannot connect to the NBD server' no_layer \
            qcow2ext-backing-file="$(uri far)" \
            qcow2ext-backing-file="$(uri nobody)" "${layers[@]:2}"
# A raw layer of which another one is below.
expect_fail 'given for 2 layers.*number 1 is raw' no_layer \
            "${layers[@]:0:2}" qcow2ext-backing-format=raw
expect_fail 'is not a qcow2 image' no_layer \
            qcow2ext-backing-file="$(uri vmdk)"
qemu-nbd -r -t -e 1 -f vmdk -k "$tmp/one.sock" --pid-file="$tmp/one.pid" \
         --fork far/base.vmdk > /dev/null 2>&1 < /dev/null
cleanup_fn _kill_pidfile "$tmp/one.pid"
export uri_one
uri_one=$(uri one)
nbdsh -u "$uri_one" -c '
import os, subprocess
r = subprocess.run (["bash", "-c", """
timeout 60 nbdkit -U - --filter=$QCOW2EXT file x.qcow2 \
    qcow2ext-backing-file="$uri_one" qcow2ext-backing-format=raw \
    --run "nbdinfo --size \\"\$uri\\""
"""], stderr=subprocess.PIPE, text=True)
print (r.stderr)
assert r.returncode != 0
assert "does not answer" in r.stderr and "-e 0" in r.stderr
h.shutdown ()
'
