# shellcheck shell=bash
# What the test scripts share.  A script begins with:
#
#   #!/usr/bin/env bash
#   source "$(dirname "$0")/../lib/functions.sh"
#   requires qemu-img --version
#   set -x
#
# and works from 'make check', from any build directory, and by hand
# (tests/read/test-foo.sh in a tree that was built in place; elsewhere set
# abs_top_builddir).
#
# Exit codes are automake's: 0 passed, 77 skipped, anything else failed.

# No pipefail: 'nbdinfo ... | grep -q' would fail now and then, when grep has
# seen enough and nbdinfo has more to say.
set -e

#----------------------------------------------------------------------
# Where things are.  'make check' exports these.

: "${abs_top_srcdir:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
: "${abs_top_builddir:=$abs_top_srcdir}"
: "${srcdir:=$abs_top_srcdir/tests}"
: "${QCOW2EXT:=$abs_top_builddir/filter/.libs/nbdkit-qcow2ext-filter.so}"
# Where this file is, and the other helpers.
lib=$abs_top_srcdir/tests/lib
export abs_top_srcdir abs_top_builddir srcdir lib QCOW2EXT

# PYTHON: a python3 that has libnbd's module.  The first one on PATH may be
# one that was not installed together with libnbd.
if [ -z "$PYTHON" ]; then
    PYTHON=python3
    for _p in python3 /usr/bin/python3; do
        if "$_p" -c 'import nbd' >/dev/null 2>&1; then
            PYTHON=$_p
            break
        fi
    done
fi
export PYTHON

# The filter under test, for nbdkit --filter="$qcow2ext".
qcow2ext=$QCOW2EXT
if [ ! -f "$qcow2ext" ]; then
    echo "$0: $qcow2ext does not exist: run make first" >&2
    exit 1
fi

# Messages are compared, so they must not be translated.
export LC_ALL=C.UTF-8
unset LANG LANGUAGE

# A fresh directory for each test, removed at exit.  It has a short name
# because the path of a socket is limited to 107 bytes.
tmp=$(mktemp -d "${TMPDIR:-/tmp}/q2x-XXXXXXXX")
export tmp

# Run nbdkit under valgrind, or with a sanitizer preloaded, as 'make
# check-valgrind' does.  A test fails if that finds something.
if [ -n "$QCOW2EXT_TEST_UNDER" ]; then
    PATH=$(cd "$lib/under" && pwd):$PATH
    # Not below $tmp, where images may name what they like as a data file; the
    # checker's own descriptor is one that a test tries.
    under_logs=$tmp.under
    export under_logs
    mkdir "$under_logs"
fi

_check_under ()
{
    local f
    for f in "$under_logs"/*; do
        case $f in
            */[0-9]* | */*.nbdkit.[0-9]*) ;;
            *) continue ;;      # of what nbdkit has run
        esac
        # Lines that begin with -- are about valgrind itself.  What nbdkit, or a
        # filter or plugin of its own, allocates and loses is not ours.
        if grep -v '^--' "$f" | awk '
            BEGIN { RS = "" }
            /LeakSanitizer: detected|^=*\n*SUMMARY:/ { next }
            /^(Direct|Indirect) leak/ && /\n *#1 [^\n]*\/nbdkit[^\n]*\)/ &&
                !/\n *#1 [^\n]*qcow2ext/ { next }
            # What libnbd knows of the last error of a thread that lives on when
            # the process ends.
            /^Direct leak of 24 byte/ && /\n *#0 [^\n]* __interceptor_calloc/ &&
                /\n *#1 [^\n]*\/libnbd\.so/ && !/\n *#2/ { next }
            { bad = 1 }
            END { exit !bad }'
        then
            cat "$f"
            echo "$0: FAILED: $QCOW2EXT_TEST_UNDER has found something" >&2
            status=1
        fi
    done
}

#----------------------------------------------------------------------
# cleanup_fn CMD ARGS...
#
# Run CMD at exit, however the script ends.  The last one added runs first.

_cleanup_cmds=()

cleanup_fn ()
{
    local q
    printf -v q '%q ' "$@"
    _cleanup_cmds+=("$q")
}

_run_cleanup ()
{
    local status=$? i
    trap '' INT QUIT TERM HUP
    trap - EXIT
    set +e
    for ((i = ${#_cleanup_cmds[@]} - 1; i >= 0; i--)); do
        eval "${_cleanup_cmds[i]}"
    done
    cd /
    [ -z "$QCOW2EXT_TEST_UNDER" ] || _check_under
    rm -rf "$tmp" "$tmp.under"
    exit "$status"
}

trap _run_cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 131' QUIT
trap 'exit 143' TERM

#----------------------------------------------------------------------
# requires CMD ARGS...
#
# Skip the test unless CMD succeeds.

requires ()
{
    if ! ( "$@" ) </dev/null >/dev/null 2>&1; then
        echo "$0: skipped: '$*' is not available"
        exit 77
    fi
}

# requires_nbd_module
#
# Skip the test unless there is libnbd's Python module.

requires_nbd_module ()
{
    requires "$PYTHON" -c 'import nbd'
}

# make_luks CMD...
#
# Run qemu-img, which makes keys, again if it fails: it measures how long that
# takes, and gives up if the clock says that it took no time.

make_luks ()
{
    local i
    for ((i = 0; i < 20; i++)); do
        ! "$@" || return 0
    done
    fail "$*"
}

# requires_libnbd
#
# Skip the test unless the filter was built with libnbd.  The filter itself
# says so from nbdkit 1.36 on only, so look how it was configured.

requires_libnbd ()
{
    requires grep -q '^#define HAVE_LIBNBD 1' \
             "$abs_top_builddir/build-config.h"
}

# kvm_is_of_use
#
# Whether a virtual machine gets anywhere with /dev/kvm: in some that are
# virtual machines themselves the BIOS takes seconds, and a kernel does not
# start at all.  The disk's boot sector tells QEMU to end, which takes a
# fraction of a second.  A wrong "no" makes a test slower, no more.

kvm_is_of_use ()
{
    local status=0

    [ -w /dev/kvm ] || return 1
    # mov $0x10, %al; out %al, $0xf4; hlt
    printf '\xb0\x10\xe6\xf4\xf4' > "$tmp/boot"
    truncate -s 510 "$tmp/boot"
    printf '\x55\xaa' >> "$tmp/boot"
    timeout 1 qemu-system-x86_64 -machine accel=kvm -display none -nodefaults \
        -device isa-debug-exit,iobase=0xf4,iosize=1 \
        -drive file="$tmp/boot",format=raw,if=ide </dev/null || status=$?
    rm "$tmp/boot"
    [ "$status" -eq 33 ]
}

guestfish_starts ()
{
    timeout "$1" guestfish -a /dev/null run </dev/null >/dev/null 2>&1
}

# requires_guestfish
#
# Skip the test unless guestfish can start its virtual machine, emulated where
# KVM is of no use.  To find out takes as long as a short test; the answer, the
# settings or "no", is kept in the build directory for an hour.

requires_guestfish ()
{
    local answer="$abs_top_builddir/tests/guestfish.answer"

    requires guestfish --version
    export LIBGUESTFS_BACKEND=direct
    [ -d "$abs_top_builddir/tests" ] || answer=$tmp/guestfish.answer
    (
        flock 9
        [ -z "$(find "$answer" -size +0 -mmin -60)" ] || exit 0
        # KVM may boot what kvm_is_of_use has, and yet be of no use for more.
        if kvm_is_of_use >/dev/null 2>&1 && guestfish_starts 60; then
            echo "settings " > "$answer"
            exit 0
        fi
        export LIBGUESTFS_BACKEND_SETTINGS=force_tcg
        if guestfish_starts 300; then
            echo "settings force_tcg" > "$answer"
        else
            echo "no" > "$answer"
        fi
    ) 9>>"$answer"
    requires grep -q '^settings' "$answer"
    LIBGUESTFS_BACKEND_SETTINGS=$(sed 's/^settings //' "$answer")
    export LIBGUESTFS_BACKEND_SETTINGS
}

# unconfigured_source
#
# Print a directory with what configure needs, in which nothing was configured:
# the source tree, or, if that is built in place, a copy.

unconfigured_source ()
{
    if [ ! -e "$abs_top_srcdir/config.status" ]; then
        echo "$abs_top_srcdir"
        return 0
    fi
    mkdir "$tmp/source"
    (
        cd "$abs_top_srcdir"
        cp -p -r --parents -t "$tmp/source" aclocal.m4 build-aux \
           build-config.h.in configure configure.ac m4 filter/qcow2ext.c \
           Makefile.{am,in} {docs,filter,tests}/Makefile.{am,in}
    )
    echo "$tmp/source"
}

# nbdkit_minor
#
# Print M of nbdkit 1.M.

nbdkit_minor ()
{
    nbdkit --dump-config | sed -n 's/^version_minor=//p'
}

# requires_loop_devices
#
# Where there are none, as in a container, the rest of the script is not run
# here: the whole of it is run in guestfish's virtual machine.  To see that,
# set QCOW2EXT_TEST_NO_LOOP=1.

requires_loop_devices ()
{
    local device

    truncate -s 1M "$tmp/probe"
    if [ -z "$QCOW2EXT_TEST_NO_LOOP" ] &&
       device=$(losetup -f --show "$tmp/probe" 2>/dev/null); then
        losetup -d "$device"
        rm "$tmp/probe"
        return 0
    fi
    if [ "$QCOW2EXT_TEST_IN_APPLIANCE" ]; then
        fail "no loop devices in guestfish's virtual machine"
    fi
    requires_guestfish
    echo "$0: no loop devices here; in guestfish's virtual machine:"
    "$lib/appliance.sh" "$0" && exit 0 || exit $?
}

# requires_direct_io
#
# Skip the test unless files in the current directory can be read and written
# past the page cache.

requires_direct_io ()
{
    requires test "$(stat -f -c %T .)" != tmpfs
    requires dd if=/dev/zero of=probe bs=4096 count=1 oflag=direct
    rm -f probe
}

# loop_device FILE LOSETUP-ARGS...
#
# Make FILE a block device until the end of the test; its name is in $device.

loop_device ()
{
    device=$(losetup -f --show "${@:2}" "$1") || fail "no loop device for $1"
    cleanup_fn losetup -d "$device"
}

#----------------------------------------------------------------------
# fail MSG...
#
# Print the message and end the test as failed.

fail ()
{
    { set +x; } 2>/dev/null
    echo "$0: FAILED: $*" >&2
    exit 1
}

# wait_until WHAT CMD ARGS...
#
# Run CMD, a function perhaps, without its output, until it succeeds.  The
# deadline is for what never comes, not for what is slow on a busy machine.  WHAT
# is for the message.

wait_until ()
{
    local what=$1 end=$((SECONDS + 120))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not within two minutes: $what"
        sleep 0.05
    done
}

# cpu_ms NAME
#
# Print the processor time, in milliseconds, that the server NAME has taken, which
# does not depend on what else the machine does.

cpu_ms ()
{
    local stat
    read -r stat < "/proc/$(< "$tmp/$1.pid")/stat"
    # After the name, which may hold anything, utime and stime are the 12th and
    # 13th.
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    echo $(((${12} + ${13}) * 1000 / $(getconf CLK_TCK)))
}

#----------------------------------------------------------------------
# mkimage ARGS...
#
# Make a qcow2 image byte by byte, valid or not: see mkimage.py --help.

mkimage ()
{
    "$PYTHON" "$lib/mkimage.py" "$@"
}

# nbdsh ARGS...
#
# libnbd's shell, by the Python that has its module.

nbdsh ()
{
    "$PYTHON" -m nbd "$@"
}

#----------------------------------------------------------------------
# start_nbdkit -P PIDFILE ARGS...
#
# Start nbdkit in the background and wait until it serves; it is killed at
# exit.  Pass -U SOCKET among ARGS.  Fails the test if nbdkit does not start.

start_nbdkit ()
{
    local pidfile i pid

    [ "$1" = "-P" ] || fail "start_nbdkit: -P PIDFILE must come first"
    pidfile=$2
    shift 2

    rm -f "$pidfile"
    cleanup_fn _kill_pidfile "$pidfile"

    # nbdkit goes into the background by itself once it is ready, and fails
    # if the configuration is wrong.  stdin is closed to it so that it does
    # not hold on to ours.
    if ! timeout 60 nbdkit -P "$pidfile" "$@" </dev/null; then
        fail "nbdkit did not start: $*"
    fi

    # The pid file is the last thing that nbdkit writes, and is written
    # after the fork, by the child.
    for ((i = 0; i < 600; i++)); do
        [ -s "$pidfile" ] && break
        sleep 0.1
    done
    [ -s "$pidfile" ] || fail "nbdkit did not write its pid file"
    pid=$(< "$pidfile")
    kill -0 "$pid" 2>/dev/null || fail "nbdkit ended at once: $*"
}

# True as long as the process runs.  A zombie does not: where nobody reaps
# orphans, as in some containers, it stays for ever.
_running ()
{
    local stat
    read -r stat 2>/dev/null < "/proc/$1/stat" || return 1
    stat=${stat##*) }
    [ "${stat%% *}" != Z ]
}

_kill_pidfile ()
{
    [ -s "$1" ] || return 0
    _kill_pid "$(< "$1")"
}

# Numbers of processes come round, soon where another test has thousands of
# threads: one that was noted may be that test's by now.
_is_ours ()
{
    grep -qs "^PPid:[[:space:]]*$$\$" "/proc/$1/status" ||
        grep -qsz "^tmp=$tmp\$" "/proc/$1/environ" ||
        grep -qsF "$tmp" "/proc/$1/cmdline"
}

_kill_pid ()
{
    local pid=$1 i
    _running "$pid" && _is_ours "$pid" || return 0
    kill "$pid" 2>/dev/null || return 0
    for ((i = 0; i < 1000; i++)); do
        _running "$pid" || return 0
        sleep 0.05
    done
    # A server that must be killed is a bug, but not one to hang for.
    kill -9 "$pid" 2>/dev/null || true
}

# serve NAME ARGS...
#
# Start nbdkit ARGS... with the socket $tmp/NAME.sock and the pid file
# $tmp/NAME.pid.

serve ()
{
    local name=$1
    shift
    rm -f "$tmp/$name.sock"
    start_nbdkit -P "$tmp/$name.pid" -U "$tmp/$name.sock" "$@"
}

# serve_log NAME ARGS...
#
# The same with nbdkit in the foreground as far as it can tell (-f), so that
# its messages are not lost: they are in $tmp/NAME.log.

serve_log ()
{
    local name=$1 i pid
    shift
    rm -f "$tmp/$name.sock" "$tmp/$name.pid"
    nbdkit -f -P "$tmp/$name.pid" -U "$tmp/$name.sock" "$@" \
           </dev/null >"$tmp/$name.log" 2>&1 &
    pid=$!
    # If the script ends while nbdkit starts there is no pid file yet.
    cleanup_fn _kill_pid "$pid"
    for ((i = 0; i < 600; i++)); do
        [ -s "$tmp/$name.pid" ] && return 0
        if ! _running "$pid"; then
            cat "$tmp/$name.log"
            fail "nbdkit did not start: $*"
        fi
        sleep 0.1
    done
    fail "nbdkit did not write its pid file"
}

# uri NAME
#
# The NBD URI of what 'serve NAME' serves.

uri ()
{
    echo "nbd+unix:///?socket=$tmp/$1.sock"
}

# stop NAME
#
# End the server and wait until it has gone.  One that does not go within a
# minute fails the test.

stop ()
{
    local pid i
    pid=$(< "$tmp/$1.pid")
    kill "$pid" 2>/dev/null || fail "stop: $1 was not running any more"
    for ((i = 0; i < 1200; i++)); do
        if ! _running "$pid"; then
            rm -f "$tmp/$1.pid" "$tmp/$1.sock"
            return 0
        fi
        sleep 0.05
    done
    fail "stop: $1 did not end"
}

#----------------------------------------------------------------------
# expect_fail PATTERN CMD ARGS...
#
# CMD must fail within two minutes, by itself and not by a signal, and say
# something that matches the extended regular expression PATTERN.  Its
# output, stdout and stderr, is left in $tmp/expect_fail.out.

expect_fail ()
{
    local pattern=$1 out="$tmp/expect_fail.out" status=0
    shift

    # timeout cannot run a function of ours, and a function may hang too: run
    # it in a subshell with a watchdog.
    if [ "$(type -t "$1")" = function ]; then
        _function_timeout 120 "$@" </dev/null >"$out" 2>&1 || status=$?
    else
        timeout -k 5 120 "$@" </dev/null >"$out" 2>&1 || status=$?
    fi

    cat "$out"
    case $status in
        0) fail "should have failed: $*" ;;
        124) fail "did not end within two minutes: $*" ;;
    esac
    [ "$status" -lt 128 ] ||
        fail "died of signal $((status - 128)): $*"
    grep -Eq -- "$pattern" "$out" ||
        fail "failed, but said nothing that matches '$pattern': $*"
}

_function_timeout ()
(
    trap - EXIT HUP INT QUIT TERM
    seconds=$1
    shift
    "$@" &
    pid=$!
    for ((i = 0; i < seconds * 20; i++)); do
        if ! kill -0 "$pid" 2>/dev/null; then
            wait "$pid"
            exit $?
        fi
        sleep 0.05
    done
    pkill -P "$pid" 2>/dev/null
    kill "$pid" 2>/dev/null
    exit 124
)
