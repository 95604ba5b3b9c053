#!/usr/bin/env bash
# The bit "external data file" without a name in the image needs the parameter
# qcow2ext-data-file=, and the message says so.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkimage x.qcow2 --data-file-bit on --data 0-3=1 --zero 4 --data 7=2 \
        --reference ref.raw --data-file-out my.data
no_disk 'qcow2ext-data-file' file x.qcow2
same x.qcow2 ref.raw qcow2ext-data-file=my.data

# The parameter wins over a name, whatever it is; the image's name is not
# needed then and not touched.
mkdir elsewhere
mv my.data elsewhere/
for name in x.data /etc/passwd json:{} http://localhost/; do
    mkimage x.qcow2 --data-file "$name" --data 0-3=1 --zero 4 --data 7=2
    same x.qcow2 ref.raw qcow2ext-data-file=elsewhere/my.data
    same x.qcow2 ref.raw qcow2ext-data-file="$tmp/elsewhere/my.data" \
         qcow2ext-allow=none
done

# It may lead anywhere, but not nowhere, and must make sense.
no_disk 'missing' file x.qcow2 qcow2ext-data-file=missing.data
! grep 'say where' expect_fail.out || fail "advises what was done"
no_disk 'elsewhere' file x.qcow2 qcow2ext-data-file=elsewhere
mkimage plain.qcow2 --data 0=1
no_disk 'data.file' file plain.qcow2 \
        qcow2ext-data-file=elsewhere/my.data
