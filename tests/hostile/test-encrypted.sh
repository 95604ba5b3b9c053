#!/usr/bin/env bash
# Encrypted images are refused by the name of the method, when nbdkit starts,
# with a word on what to do.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
cd "$tmp"

make_luks qemu-img create -q -f qcow2 --object secret,id=s,data=secret \
          -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
          luks.qcow2 1M
refused 'LUKS' file luks.qcow2
qemu-img create -q -f qcow2 --object secret,id=s,data=secret \
         -o encrypt.format=aes,encrypt.key-secret=s aes.qcow2 1M
refused 'AES' file aes.qcow2
# As a backing file as well.
mkimage top.qcow2 --backing luks.qcow2 --backing-format qcow2
no_disk 'LUKS' file top.qcow2
