#!/usr/bin/env bash
# The data and backing file of an image that is not a local file must be given
# by parameter; the message says which one.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

below_images
serve d -r file d.qcow2
serve o -r file o.qcow2
serve x -r file x.qcow2
gzip -k d.qcow2 o.qcow2

# The names lead to files that are there, in our current directory.
no_disk 'qcow2ext-data-file' nbd socket=d.sock
no_disk 'qcow2ext-backing-file' nbd socket=o.sock
no_disk 'qcow2ext-data-file' --filter=gzip file d.qcow2.gz
no_disk 'qcow2ext-backing-file' --filter=gzip file o.qcow2.gz
no_disk 'qcow2ext-data-file' nbd socket=d.sock qcow2ext-allow="$tmp"
no_disk 'qcow2ext-data-file' nbd socket=d.sock qcow2ext-allow=/
no_disk 'qcow2ext-backing-file' nbd socket=o.sock qcow2ext-allow=/

same_over ref.raw nbd socket=x.sock
same_over ref.raw nbd socket=d.sock qcow2ext-data-file=d.data
same_over ref.raw nbd socket=o.sock qcow2ext-backing-file=b.raw
readable "640K:320K=7 0:640K=zero" nbd socket=o.sock qcow2ext-backing-file=none
