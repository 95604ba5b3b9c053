#!/usr/bin/env bash
# The server of the data file demands TLS with a pre-shared key.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires_libnbd
requires qemu-img --version
requires_nbd_module
requires eval 'nbdkit --dump-config | grep -q ^tls=yes'
requires "$PYTHON" -c 'import nbd; assert nbd.NBD ().supports_tls ()'
cd "$tmp"
echo "alice:$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" > keys
echo "alice:$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')" > wrong
chmod 600 keys wrong
tls="nbds+unix://alice@/?socket=$tmp/far.sock&tls-psk-file=$tmp"

new_image -o data_file=x.data,data_file_raw=on x.qcow2 16M
qemu-img convert -f qcow2 -O raw x.qcow2 before.raw
serve far --tls=require --tls-psk="$tmp/keys" file x.data
serve s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$tls/keys"
stress "$(uri s)" --seed 3 --ops 300 --cluster 65536 \
       --model-in before.raw --model-out after.raw
stop s
clean
identical after.raw
same_file after.raw x.data

# Neither without TLS nor with another key.
for uri in "$(uri far)" "$tls/wrong"; do
    serve_log s --filter="$qcow2ext" file x.qcow2 qcow2ext-data-file="$uri"
    expect_fail . nbdinfo "$(uri s)"
    stop s
    cat s.log
    grep -q 'cannot connect to the NBD server' s.log
done
