#!/usr/bin/env bash
# qcow2ext-backing-file=PATH replaces the name that the image has, =none makes
# it stand alone, and neither needs the image's name to be right.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

mkdir elsewhere
mixed_file base.raw 1048576
mixed_file elsewhere/other.raw 1048576
mkimage elsewhere/other.qcow2 --data 0-15=5
printf other | dd of=elsewhere/other.raw conv=notrunc status=none

for name in base.raw missing.raw /etc/passwd json:{} nbd://localhost/; do
    echo "=== $name"
    mkimage top.qcow2 --backing "$name" --backing-format raw --data 3=9 \
            --zero 5
    cp elsewhere/other.raw ref.raw
    "$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
with open ("ref.raw", "r+b") as f:
    f.seek (3 * 65536)
    f.write (mkimage.content (9, 3 * 65536, 65536))
    f.seek (5 * 65536)
    f.write (bytes (65536))
END
    same top.qcow2 ref.raw qcow2ext-backing-file=elsewhere/other.raw
    same top.qcow2 ref.raw qcow2ext-backing-file="$tmp/elsewhere/other.raw" \
         qcow2ext-allow=none
    same top.qcow2 ref.raw qcow2ext-backing-file=elsewhere/other.raw \
         qcow2ext-backing-format=raw
    readable "0:64K=5 192K:64K=9 320K:64K=zero 384K:640K=5" file top.qcow2 \
             qcow2ext-backing-file=elsewhere/other.qcow2 \
             qcow2ext-backing-format=qcow2
    readable "0:192K=zero 192K:64K=9 256K:768K=zero" file top.qcow2 \
             qcow2ext-backing-file=none
done

# An image without one can be given one.
mkimage plain.qcow2 --data 3=9 --zero 5
same plain.qcow2 ref.raw qcow2ext-backing-file=elsewhere/other.raw \
     qcow2ext-backing-format=raw
no_disk 'qcow2ext-backing-format' file plain.qcow2 \
        qcow2ext-backing-file=elsewhere/other.raw
no_disk 'missing' file plain.qcow2 qcow2ext-backing-file=missing.raw \
        qcow2ext-backing-format=raw

# Only the first link is replaced: the override's own name is subject to the
# rules again.
mkimage elsewhere/chain.qcow2 --backing other.qcow2 --backing-format qcow2
no_disk 'qcow2ext-allow' file plain.qcow2 qcow2ext-allow=none \
        qcow2ext-backing-file=elsewhere/chain.qcow2 \
        qcow2ext-backing-format=qcow2
readable "0:64K=5 192K:64K=9 320K:64K=zero" file plain.qcow2 \
         qcow2ext-backing-file=elsewhere/chain.qcow2 \
         qcow2ext-backing-format=qcow2 qcow2ext-allow=elsewhere
