#!/usr/bin/env bash
# Which URIs are taken for qcow2ext-data-file, and which are refused at start.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
cd "$tmp"
new_image -o data_file=x.data x.qcow2 1M
truncate -s 1M x.data
qemu-io -f qcow2 -c 'write -P 7 0 1M' x.qcow2

started ()
{
    nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$1" \
           --run true
}
# The server changes its directory.
for uri in 'nbd+unix:///?socket=far.sock' \
           'nbds+unix:///?tls-psk-file=keys;socket=/x' \
           'nbds://localhost/?tls-certificates=.'; do
    expect_fail 'must be absolute' started "$uri"
done
expect_fail 'given twice' \
    nbdkit -U - --filter="$qcow2ext" file x.qcow2 --run true \
    qcow2ext-data-file=nbd://localhost qcow2ext-data-file=nbd://localhost
# Not URIs, but files that are not there.
for name in nbd:localhost nbd nbd:/x ./nbd://localhost http://localhost/x; do
    expect_fail 'cannot be opened: No such file' started "$name"
done
# An image without data file is refused as with a file.
qemu-img create -q -f qcow2 y.qcow2 1M
expect_fail 'does not use one' \
    nbdkit -U - --filter="$qcow2ext" file y.qcow2 --run true \
    qcow2ext-data-file=nbd://localhost

# Over TCP, with an export name; the socket's path with escapes.
port=$("$PYTHON" -c 'import socket
s = socket.socket ()
s.bind (("localhost", 0))
print (s.getsockname ()[1])')
start_nbdkit -P tcp.pid -i localhost -p "$port" --filter=exportname \
             file x.data exportname=my/disk exportname-strict=true
mkdir "$tmp/a b"
start_nbdkit -P escaped.pid -U "$tmp/a b/s" file x.data
for uri in "nbd://localhost:$port/my/disk" \
           "nbd+unix:///?socket=${tmp//\//%2F}%2Fa%20b%2Fs"; do
    serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$uri"
    qemu-io -r -f raw -c 'read -P 7 0 1M' "$(uri s)" | tee out
    ! grep -q failed out
    stop s
done
serve_log s --filter="$qcow2ext" file x.qcow2 \
          qcow2ext-data-file="nbd://localhost:$port/other"
expect_fail . nbdinfo "$(uri s)"
cat s.log
grep -q 'cannot connect to the NBD server' s.log
