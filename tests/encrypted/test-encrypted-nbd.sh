#!/usr/bin/env bash
# An encrypted image whose data file is on an NBD server: what comes there is
# ciphertext, which QEMU can read.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module
requires_libnbd

size=$(size_for 65536)
for cipher in "$xts256" "$cbc128"; do
    new_encrypted "$cipher" -o data_file=x.data x.qcow2 "$size"
    scribble "$stress_seed" 20 "$size"
    # A server does not grow.
    truncate -s $(((size + 65535) / 65536 * 65536)) x.data
    as_raw x.qcow2 start.raw
    initial=start.raw
    serve far file x.data
    nbdkit_args=(qcow2ext-passphrase=+"$tmp/phrase"
                 qcow2ext-data-file="$(uri far)")
    stress_image plain 65536
    stop far
    no_plain_text x.qcow2 x.data
done
