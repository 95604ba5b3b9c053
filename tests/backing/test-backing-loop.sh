#!/usr/bin/env bash
# A chain that comes back to itself, is too deep, or leads to a bad image is
# refused with a message that names the file.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires_nbd_module
cd "$tmp"

over ()
{
    mkimage "$1" --backing "$2" --backing-format qcow2 --data 0=1
}

# Itself, by its own name, a hard and a symbolic link.
over self.qcow2 self.qcow2
no_disk 'chain|loop|already|itself' file self.qcow2
over hard.qcow2 other.qcow2
ln hard.qcow2 other.qcow2
no_disk 'chain|loop|already|itself' file hard.qcow2
over sym.qcow2 link.qcow2
ln -s sym.qcow2 link.qcow2
no_disk 'chain|loop|already|itself' file sym.qcow2

# Two, and three.
over a.qcow2 b.qcow2
over b.qcow2 a.qcow2
no_disk 'chain|loop|already|itself' file a.qcow2
over b.qcow2 c.qcow2
over c.qcow2 b.qcow2
no_disk 'chain|loop|already|itself' file a.qcow2
# As a data file of itself further down.
over a.qcow2 b.qcow2
mkimage b.qcow2 --data-file a.qcow2 --data 0=1
no_disk 'chain|loop|already|itself' file a.qcow2

# Too deep; of a dozen or so it can be.
mkimage deep0.qcow2 --data 0=7 --reference ref.raw
"$PYTHON" - "$lib" <<'END'
import sys
sys.path.insert (0, sys.argv[1])
import mkimage
for i in range (1, 1201):
    mkimage.Image (1 << 20, backing="deep%d.qcow2" % (i - 1),
                   backing_format="qcow2").write ("deep%d.qcow2" % i)
END
same deep12.qcow2 ref.raw
no_disk 'deep|depth|long' file deep1200.qcow2

# Bad, missing and refused at the second and third place.
mkimage top.qcow2 --backing middle.qcow2 --backing-format qcow2
no_disk 'middle.qcow2' file top.qcow2
mkimage middle.qcow2 --backing base.qcow2 --backing-format qcow2
no_disk 'base.qcow2' file top.qcow2
echo nothing > base.qcow2
no_disk 'base.qcow2' file top.qcow2
mkimage base.qcow2 --set version=7
no_disk 'base.qcow2' file top.qcow2
mkimage base.qcow2 --set crypt_method=1
no_disk 'AES' file top.qcow2
mkimage base.qcow2 --data-file /etc/passwd
no_disk '/etc/passwd' file top.qcow2
