#!/usr/bin/env bash
#
# appliance.sh SCRIPT: run a test in guestfish's virtual machine, which has
# loop devices whatever this machine has.
#
# What the tests need goes into a small file system, all of it at the place
# that it has here: programs, their libraries, Python, nbdkit, the filter and
# the tests.  The result is that of the test.  It is functions.sh that calls
# this, with its variables.
set -e

: "${abs_top_srcdir:?}" "${lib:?}" "${QCOW2EXT:?}" "${PYTHON:?}"
PYTHON=$(command -v "$PYTHON")

work=$(mktemp -d "${TMPDIR:-/tmp}/q2x-appliance-XXXXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir "$root"

# With a merged /usr these are links.
for d in bin sbin lib lib64; do
    if [ -L /$d ]; then
        mkdir -p "$root/$(readlink /$d)"
        cp -P /$d "$root/"
    fi
done
mkdir -p "$root"/{dev,etc,proc,root,sys,tmp,var}

# Programs and modules; those that this machine lacks, the test will not need.
names=(
    awk basename bash blkdiscard blockdev cat chmod cmp cp cut date dd
    dirname env expr false grep head kill ln losetup ls md5sum mkdir mktemp
    mv nbdcopy nbdinfo nbdkit nproc numfmt od pgrep pkill printf ps pwd
    python3 qemu-img qemu-io readlink realpath rm rmdir sed seq sh sha256sum
    sleep sort stat strace sync tail tee test timeout touch tr true truncate
    uniq wc xargs
)
files=()
for name in "${names[@]}"; do
    if path=$(command -v "$name") && [ -f "$path" ]; then
        files+=("$path")
    fi
done
files+=("$PYTHON" "$QCOW2EXT")
nbdkit_dir () { nbdkit --dump-config | sed -n "s/^$1=//p"; }
for name in file eval memory nbd; do
    files+=("$(nbdkit_dir plugindir)/nbdkit-$name-plugin.so")
done
for name in cow cache offset; do
    files+=("$(nbdkit_dir filterdir)/nbdkit-$name-filter.so")
done

# Python with its library, and libnbd's module.
stdlib=$("$PYTHON" -c '
import sysconfig
print (sysconfig.get_path ("stdlib"))')
mapfile -t modules < <("$PYTHON" -c '
import nbd, libnbdmod, nbdsh
for m in (nbd, libnbdmod, nbdsh): print (m.__file__)')
files+=("${modules[@]}" "$stdlib"/lib-dynload/*.so)

mapfile -t libraries < <(
    ldd "${files[@]}" 2>/dev/null |
        sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p' |
        sort -u)
printf '%s\n' "${files[@]}" "${libraries[@]}" | sort -u |
    xargs cp --parents -L -t "$root"
tar -C / -c --exclude=__pycache__ --exclude=test --exclude=lib-dynload \
    --exclude=config-\* "${stdlib#/}" | tar -C "$root" -x
script=$(realpath "$1")
cp --parents -r -t "$root" "$(realpath "$lib")" "$script"
echo 'root:x:0:0:root:/root:/bin/bash' > "$root/etc/passwd"
cp /etc/ld.so.cache "$root/etc/"
if [ -d /usr/lib/locale/C.utf8 ]; then
    cp -r --parents /usr/lib/locale/C.utf8 "$root"
fi

cat > "$root/run" <<END
#!$(command -v bash)
export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin TMPDIR=/tmp
export abs_top_srcdir='$(realpath "$abs_top_srcdir")'
export QCOW2EXT='$QCOW2EXT' PYTHON='$PYTHON' QCOW2EXT_TEST_IN_APPLIANCE=1
'$script' >/log 2>&1 </dev/null
echo \$? > /status
END
chmod +x "$root/run"

size=$(($(du -sm "$root" | cut -f 1) * 5 / 4 + 256))
truncate -s "${size}M" "$work/disk"
mke2fs -q -t ext4 -d "$root" "$work/disk"
rm -r "$root"

guestfish --format=raw -a "$work/disk" <<END
run
-debug sh "modprobe loop"
mount /dev/sda /
command /run
download /log $work/log
download /status $work/status
END
cat "$work/log"
exit "$(cat "$work/status")"
