#!/usr/bin/env bash
# The command line gives the layers of a chain one after another, with their
# formats; what it does not give, the images name.  With qcow2ext-allow=none no
# name in an image is looked up.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
tmp=$(realpath "$tmp")
mkdir "$tmp/img" "$tmp/img2" "$tmp/cwd"
cd "$tmp/cwd"

# As downloaded: increments by other names than they had.
mkimage 3.qcow2 --backing gone/a.qcow2 --backing-format qcow2 --data 2=3
mkimage 2.qcow2 --backing gone/b.qcow2 --backing-format qcow2 --data 2=4 --data 3=5
mkimage 1.qcow2 --backing gone/c.raw --backing-format raw --data 3=6 --data 4=7
mixed_file base.raw 1048576
f=qcow2ext-backing-file t=qcow2ext-backing-format
all=("$f=2.qcow2" "$f=$tmp/cwd/1.qcow2" "$f=base.raw")
cp base.raw ref.raw
"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
with open ("ref.raw", "r+b") as f:
    for cluster, seed in (2, 3), (3, 5), (4, 7):
        f.seek (cluster * 65536)
        f.write (mkimage.content (seed, cluster * 65536, 65536))
END

same 3.qcow2 ref.raw "${all[@]}"
same 3.qcow2 ref.raw "${all[@]}" qcow2ext-allow=none
same 3.qcow2 ref.raw "${all[@]}" $t=qcow2 $t=qcow2 $t=raw
same 3.qcow2 ref.raw "${all[@]}" $t=auto $t=auto $t=raw
same 3.qcow2 ref.raw "${all[@]}" $t=auto
same 3.qcow2 ref.raw "${all[@]}" $t=qcow2 $t=auto
# Without the last one, its place is where the image above says.
mkdir gone
mv base.raw gone/c.raw
same 3.qcow2 ref.raw "${all[@]:0:2}"
mv gone/c.raw base.raw
no_disk 'gone/c.raw.*qcow2ext-backing-file' file 3.qcow2 "${all[@]:0:2}"
# The end of the chain.
readable "0:128K=zero 128K:64K=3 192K:64K=5 256K:768K=zero" file 3.qcow2 \
         $f=2.qcow2 $f=none
readable "128K:64K=3 192K:64K=5 256K:64K=7 320K:704K=zero" file 3.qcow2 \
         $f=2.qcow2 $f=1.qcow2 $f=none $t=auto

# The last format is also that of what nobody says.
mkimage 2n.qcow2 --backing x --data 2=4 --data 3=5
mkimage 1n.qcow2 --backing x --data 3=6 --data 4=7
no_disk 'format' file 3.qcow2 $f=2n.qcow2 $f=1n.qcow2 $f=base.raw
no_disk 'format' file 3.qcow2 $f=2n.qcow2 $f=1n.qcow2 $f=base.raw \
        $t=qcow2 $t=qcow2 $t=auto
same 3.qcow2 ref.raw $f=2n.qcow2 $f=1n.qcow2 $f=base.raw $t=qcow2 $t=qcow2 \
     $t=raw
# Images that name none get one, too.
mkimage 2o.qcow2 --data 2=4 --data 3=5
mkimage 1o.qcow2 --data 3=6 --data 4=7
same 3.qcow2 ref.raw $f=2o.qcow2 $f=1o.qcow2 $f=base.raw $t=qcow2 $t=qcow2 \
     $t=raw
no_disk 'not a qcow2 image.*qcow2ext-backing-format' file 3.qcow2 \
        $f=2n.qcow2 $f=1n.qcow2 $f=base.raw $t=qcow2 $t=qcow2 $t=qcow2
no_disk 'not a qcow2 image.*the image' file 3.qcow2 $f=base.raw
served true file 3.qcow2 $f=2.qcow2 $t=raw 2> log
grep 'warning.*2.qcow2 is a qcow2 image.*raw' log || fail "no warning"

# Too many, or the same one again.
no_disk 'given for 4 layers.*number 3 is raw' file 3.qcow2 "${all[@]}" \
        $f=2n.qcow2
no_disk 'given for 2 layers.*only 1' file 3.qcow2 $f=base.raw $t=raw $t=raw
no_disk 'follow' file 3.qcow2 $f=none $f=2.qcow2
no_disk 'already in use as another part' file 3.qcow2 $f=2.qcow2 $f=2.qcow2
no_disk 'already in use as another part' file 3.qcow2 $f=2.qcow2 $f=3.qcow2
no_disk 'raw or qcow2' file 3.qcow2 "${all[@]}" $t=vmdk
no_disk 'already in use|given twice' file 3.qcow2 $f=2.qcow2 \
        $f=../cwd/2.qcow2

# Nothing that an image names is looked up.
if strace -f -o /dev/null true; then
    # A sanitizer's leak check does not work under strace.
    ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD='' \
    strace -f -e trace=%file -o trace \
           nbdkit -r -U - --filter="$qcow2ext" file 3.qcow2 "${all[@]}" \
           qcow2ext-allow=none --run 'nbdinfo --size "$uri"'
    grep -q 'base.raw' trace || fail "nothing was traced"
    ! grep gone trace || fail "a name in an image was looked up"
fi
