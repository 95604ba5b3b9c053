#!/usr/bin/env bash
# The commands of the manual page, taken from the page, do what it says.  They
# are run paragraph by paragraph, in the order of the page; here are the files
# that a section begins with and what must hold after it.  A section that is
# not known here fails the test.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires nbdcopy --version
requires xz --version
requires_nbd_module
requires qemu-storage-daemon --version
requires grep '^#define HAVE_LIBNBD 1' "$abs_top_builddir/build-config.h"
requires_guestfish
requires nbdkit curl --version
requires nbdkit --filter=readahead null --version
cd "$tmp"

page=$abs_top_srcdir/docs/nbdkit-qcow2ext-filter.pod

# The commands say --filter=qcow2ext; servers that go into the background have
# to be stopped when a section is over.
mkdir bin pids
cat > bin/nbdkit <<EOF
#!/usr/bin/env bash
args=()
background=(-P "$tmp/pids/\$\$" -U "$tmp/unnamed.sock")
# A client has started it.
[ -z "\$LISTEN_FDS" ] || background=()
for arg; do
    case \$arg in
        --filter=qcow2ext) arg=--filter=$qcow2ext ;;
        --run) background=() ;;
        -U) [ -z "\${background[*]}" ] ||
                background=("\${background[@]:0:2}") ;;
    esac
    args+=("\$arg")
done
exec $(command -v nbdkit) "\${background[@]}" "\${args[@]}"
EOF
chmod +x bin/nbdkit
ln -s "$(command -v "$PYTHON")" bin/python3
PATH=$tmp/bin:$PATH

stop_servers ()
{
    local f pid
    for f in pids/*; do
        [ -s "$f" ] || continue
        pid=$(< "$f")
        # One that a client had started has gone with it.
        if grep -Eqs 'nbdkit|qemu-storage|qemu-nbd' "/proc/$pid/comm"; then
            _kill_pid "$pid"
        fi
        rm -f "$f"
    done
    # nbdkit leaves them.
    rm -f ./*.sock
}
cleanup_fn stop_servers

# The disk that vm1 holds, and others that the examples begin with.
sample ()
{
    truncate -s 64M "$1"
    dd if=/dev/urandom of="$1" bs=64K count=20 seek="$2" conv=notrunc \
       status=none
}
sample disk.raw 3
sample guest.raw 500

# holds IMAGE RAW: they are the same disk.
holds ()
{
    qemu-img check "$1"
    qemu-img compare -f qcow2 -F raw "$1" "$2"
}

"$PYTHON" "$lib/range-server.py" "$tmp" "$tmp/port" &
cleanup_fn kill $!
wait_until "the web server listens" [ -s port ]

# What a section begins with.
before ()
{
    case $1 in
        'Files that an image names')
            qemu-img create -q -f qcow2 -o data_file=vm1.raw vm1.qcow2 64M ;;
        'A pair, as libvirt and KubeVirt use')
            mkdir state volume
            (cd state && qemu-img create -q -f qcow2 \
                -o data_file=../volume/disk.img,data_file_raw=on vm2.qcow2 8M)
            expect_fail 'qcow2ext-allow|qcow2ext-data-file' \
                nbdkit -U - --filter=qcow2ext file state/vm2.qcow2 --run true
            nbdkit -U - --filter=qcow2ext file state/vm2.qcow2 \
                qcow2ext-allow=volume --run true ;;
        'A pair around a raw disk') cp disk.raw old.raw ;;
        'Serve read-only for backup')
            qemu-img convert -n -f raw -O qcow2 guest.raw vm1.qcow2 ;;
        'A snapshot')
            qemu-img convert -O qcow2 guest.raw s.qcow2
            qemu-img snapshot -c before s.qcow2
            qemu-io -f qcow2 -c 'write -P 1 0 1M' s.qcow2 ;;
        'Disk and bitmaps side by side')
            cp want.raw full.raw
            qemu-io -f qcow2 -c 'write -P 4 20M 3M' -c 'write -P 5 192k 4k' \
                    vm1.qcow2
            qemu-img convert -O raw vm1.qcow2 want.raw ;;
        'Another backing file')
            mkdir moved
            qemu-img convert -c -O qcow2 disk.raw moved/golden.qcow2
            qemu-img create -q -f qcow2 -b moved/golden.qcow2 -F qcow2 \
                     overlay.qcow2
            qemu-io -f qcow2 -c 'write -P 1 8M 64K' overlay.qcow2
            qemu-img convert -O raw overlay.qcow2 want.raw
            qemu-img rebase -u -b lost.qcow2 -F qcow2 overlay.qcow2 ;;
        'A chain of increments')
            cp full.raw sunday.raw
            cp inc1.qcow2 monday.qcow2
            # They name each other in a place that is not there.
            qemu-img create -q -f qcow2 -b inc1.qcow2 -F qcow2 tuesday.qcow2
            qemu-io -f qcow2 -c 'write -P 3 9M 64K' tuesday.qcow2
            qemu-img convert -O raw tuesday.qcow2 want.raw
            qemu-img rebase -u -b archive/1.qcow2 -F qcow2 tuesday.qcow2
            qemu-img rebase -u -b archive/0.raw -F raw monday.qcow2 ;;
        'A backing file on a server')
            qemu-img convert -O vmdk disk.raw golden.vmdk ;;
        'An image on a web server' | 'Data on Ceph, or in an object store')
            qemu-img convert -O raw vm1.qcow2 want.raw ;;
        'An image inside an xz file')
            qemu-img convert -O qcow2 disk.raw plain.qcow2
            xz plain.qcow2 ;;
        'libguestfs')
            truncate -s 64M fs.raw
            mke2fs -q -F fs.raw
            qemu-img convert -n -f raw -O qcow2 fs.raw vm1.qcow2 ;;
        'Changes that are thrown away') cp vm1.raw want.raw ;;
        'An encrypted image' | 'A store of images') ;;
        'A compressed backup in one copy' | 'A golden image' | \
        'A restore that comes out sparse') ;;
        'Increments, each compressed')
            qemu-img bitmap --clear vm1.qcow2 backup0
            qemu-img convert -O raw vm1.qcow2 full.raw
            qemu-img convert -c -O qcow2 full.raw backup.qcow2
            qemu-io -f qcow2 -c 'write -P 6 40M 1M' -c 'write -z 3M 1M' \
                    vm1.qcow2
            qemu-img convert -O raw vm1.qcow2 want.raw ;;
        "The kernel's client" | 'Copy a disk out' | 'Copy a disk in' | 'A compressed image' | \
        'An incremental backup' | 'Relative names of data files') ;;
        *) fail "this test does not know the section '$1'" ;;
    esac
}

# What holds after each of its paragraphs.  Its output is in out.
after ()
{
    case $1/$2 in
        'A pair, as libvirt and KubeVirt use/'*) grep export-size out ;;
        'A pair around a raw disk/1') holds new.qcow2 disk.raw ;;
        'Serve read-only for backup/1') cmp backup.raw guest.raw ;;
        'Copy a disk out/1')
            cmp copy.raw guest.raw
            [ "$(stat -c %b copy.raw)" -lt 20000 ] || fail "no holes" ;;
        'Copy a disk in/1') holds vm1.qcow2 disk.raw ;;
        'A compressed image/1') cmp copy.raw disk.raw ;;
        'A compressed backup in one copy/1')
            holds backup.qcow2 disk.raw
            qemu-img check backup.qcow2 | grep 'compressed clusters' ;;
        'A golden image/1') holds gold.qcow2 disk.raw ;;
        'A restore that comes out sparse/1')
            holds restored.qcow2 disk.raw
            [ "$(stat -c %b restored.qcow2)" -lt 20000 ] || fail "not sparse" ;;
        'Increments, each compressed/1')
            holds inc2.qcow2 want.raw
            qemu-img check inc2.qcow2 | grep 'compressed clusters' ;;
        'A snapshot/1') grep -q 'snapshot "before"' out ;;
        'A snapshot/2') cmp before.raw guest.raw ;;
        'A store of images/1') ;;
        'A store of images/2') grep -q 'export="web.qcow2"' out ;;
        'A store of images/3') holds images/web.qcow2 disk.raw ;;
        # The disk is used.
        'An incremental backup/1')
            cp full.raw old-full.raw
            qemu-io -f qcow2 -c 'write -P 2 30M 1M' -c 'write -z 192k 64k' \
                    vm1.qcow2
            qemu-img convert -O raw vm1.qcow2 want.raw ;;
        'An incremental backup/2')
            grep -Eq '^ +31457280 +1048576 +0' out || fail "not in the bitmap"
            ;;
        'An incremental backup/3')
            cmp full.raw want.raw
            cp old-full.raw full.raw ;;
        'An incremental backup/4')
            cmp full.raw old-full.raw
            holds inc1.qcow2 want.raw ;;
        'An incremental backup/5')
            nbdkit -r -U - --filter=qcow2ext file vm1.qcow2 \
                   qcow2ext-bitmap=backup0 --run 'nbdinfo --map "$uri"' > out
            [ "$(wc -l < out)" -eq 1 ] || fail "the bitmap is not clear" ;;
        'An incremental backup/6') cmp restored.raw want.raw ;;
        'Disk and bitmaps side by side/1')
            grep -q 'export="bitmap:backup0"' out ;;
        'Disk and bitmaps side by side/2')
            cmp full.raw want.raw
            stop_servers ;;
        'Disk and bitmaps side by side/3')
            grep -Eq '^ +20971520 +3145728 +1' out
            stop_servers ;;
        'An encrypted image/1') grep -q LUKS vm4.qcow2 ;;
        'An encrypted image/2')
            ! cmp -s -n 65536 vm4.qcow2 guest.raw || fail "it is not encrypted"
            ;;
        'An encrypted image/3') grep -q 'Images are identical' out ;;
        'Another backing file/1') cmp copy.raw want.raw ;;
        'Another backing file/2')
            grep -Eq '^ +8388608 +65536 +0' out && [ "$(wc -l < out)" -eq 3 ]
            ;;
        'A chain of increments/1') cmp restored.raw want.raw ;;
        'A backing file on a server/'[26])
            nbdcopy "nbd+unix:///?socket=$tmp/vm3.sock" copy.raw
            cmp copy.raw disk.raw
            stop_servers ;;
        'A backing file on a server/1' | 'A backing file on a server/5')
            [ -S golden.sock ] ;;
        # What this machine does not have.
        'A backing file on a server/'*) ;;
        'An image on a web server/1') cmp copy.raw disk.raw ;;
        'An image on a web server/2') cmp copy.raw want.raw ;;
        'Data on Ceph, or in an object store/1') [ -S vm1-data.sock ] ;;
        'Data on Ceph, or in an object store/'[24])
            nbdcopy "nbd+unix:///?socket=$tmp/vm1.sock" copy.raw
            cmp copy.raw want.raw
            stop_servers ;;
        # The kernel may have no nbd; there is a test of nbdfuse.
        "The kernel's client"/*) ;;
        # For TLS there is test-nbd-tls.sh.
        'Data on Ceph, or in an object store/'[35]) ;;
        'An image inside an xz file/1') cmp copy.raw disk.raw ;;
        'libguestfs/1') grep -q '^lost+found$' out ;;
        'Changes that are thrown away/1')
            grep -q '^wrote 1048576' out
            cmp vm1.raw want.raw ;;
        'Relative names of data files/1')
            mkdir elsewhere
            (cd elsewhere && qemu-img info ../vm2.qcow2)
            nbdkit -r -U - --filter=qcow2ext file vm2.qcow2 --run true ;;
        'Relative names of data files/2') grep -q 'file format: qcow2' out ;;
        # For devices there is test-device-names.sh.
        'Files that an image names/'*) ;;
        *) fail "nothing is expected of '$1', paragraph $2" ;;
    esac
}

# The paragraphs: a line "=== TITLE" before each.  What begins with < is XML.
awk -v RS= '
    /^=head1/ { skip = /^=head1 (SYNOPSIS|MOVING|BESIDE)/ }
    /^=(head2|item) [A-Za-z]/ { title = $0; sub(/^=[a-z0-9]+ /, "", title) }
    /^ / && !/^ </ && !skip { print "=== " title; print }
' "$page" > paragraphs
[ "$(grep -c ^=== paragraphs)" -ge 25 ] || fail "few examples were found"

run ()
{
    local status=0

    if [ "$title" != "$previous" ]; then
        stop_servers
        n=0
        before "$title"
        previous=$title
    fi
    n=$((n + 1))
    printf '\n=== %s, paragraph %d\n%s' "$title" "$n" "$command"
    # What this machine does not have: that port, Ceph, S3.
    command=${command//localhost:8000/127.0.0.1:$(< port)}
    command=${command//driver=rbd/driver=file}
    command=${command//pool=vms,image=vm1/filename=vm1.raw}
    command=${command//S3 bucket=vms key=vm1.raw/file vm1.raw}
    command=${command//\/run\/vm1-data.pid/pids/qemu}
    command=${command//\/run\/golden.pid/$tmp/pids/qemu-nbd}
    command=${command//\/run\/vm1-qemu.pid/$tmp/pids/qemu-nbd}
    command=${command//\/run\//$tmp/}
    case $title/$command in
        "The kernel's client"/* | *nbds:* | */dev/VG/* | *S3\ * | *vddk*)
            command= ;;
    esac
    timeout 300 bash -e -c "$command" > out 2>&1 < /dev/null || status=$?
    cat out
    [ "$status" -eq 0 ] || fail "exit code $status"
    set -e
    after "$title" "$n"
}

title=
previous=
command=
while IFS= read -r line <&3; do
    case $line in
        '=== '*)
            [ -z "$command" ] || run
            title=${line#=== }
            command= ;;
        *) command+=${line# }$'\n' ;;
    esac
done 3< paragraphs
run
