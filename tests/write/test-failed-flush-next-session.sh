#!/usr/bin/env bash
# What a failed flush has lost stays lost: a client that comes back, by itself or
# by the retry filter, is not told that all is well.  Nothing is written and no
# flush succeeds until the server starts anew.  Reads go on.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires nbdkit --filter=retry null --dump-plugin
requires_nbd_module
cd "$tmp"
export FAIL_IO=$tmp/control

cat > loses.py <<'END'
import nbd, subprocess, sys
uri, lose = sys.argv[1:]
h = nbd.NBD ()
h.connect_uri (uri)
h.pwrite (b"1" * 65536, 0)
h.flush ()
h.pwrite (b"2" * 4096, 0)
h.pwrite (b"2" * 4096, 1 << 20)
subprocess.check_call (lose, shell=True)
try:
    h.flush ()
except nbd.Error:
    pass
else:
    sys.exit ("the flush that lost something has succeeded")
h.shutdown ()
END

cat > later.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
for what, f in (("write", lambda: h.pwrite (b"3" * 512, 4096)),
                ("allocation", lambda: h.pwrite (b"3" * 512, 2 << 20)),
                ("zero", lambda: h.zero (512, 4096)),
                ("trim", lambda: h.trim (65536, 0)),
                ("flush", h.flush)):
    try:
        f ()
    except nbd.Error:
        pass
    else:
        sys.exit ("%s: a later session is told that all is well" % what)
assert h.pread (4096, 4096) == b"1" * 4096
h.shutdown ()
END

cat > again.py <<'END'
import nbd, sys
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
h.pwrite (b"4" * 65536, 0)
h.flush ()
h.shutdown ()
h = nbd.NBD ()
h.connect_uri (sys.argv[1])
assert h.pread (65536, 0) == b"4" * 65536
h.shutdown ()
END

retry="--filter=retry retries=2 retry-delay=1"
# try LOSE PRELOAD SERVER-ARGS...
try ()
{
    local lose=$1 args
    shift
    for above in "" "$retry"; do
        echo "=== $lose: $above $*"
        new_image -o "$opts" x.qcow2 4M
        [ ! -e x.data ] || truncate -s 4M x.data
        [ "$lose" != ./restart ] || far_restart file x.data
        read -ra args <<< "$above"
        serve_preloaded fail-io s "${args[@]:0:1}" --filter="$qcow2ext" \
                        file x.qcow2 "${args[@]:1}" "$@"
        "$PYTHON" loses.py "$(uri s)" "$lose"
        rm -f "$FAIL_IO"*
        # Not the next one, nor that after it.
        "$PYTHON" later.py "$(uri s)"
        "$PYTHON" later.py "$(uri s)"
        # Another file in its place is none of that.
        qemu-img create -q -f qcow2 y.qcow2 4M
        mv x.qcow2 old.qcow2
        mv y.qcow2 x.qcow2
        [ "$opts" != cluster_size=64K ] || "$PYTHON" again.py "$(uri s)"
        mv old.qcow2 x.qcow2
        "$PYTHON" later.py "$(uri s)"
        stop s
        no_errors
        # shellcheck disable=SC2086
        serve s ${args[0]} --filter="$qcow2ext" file x.qcow2 "${args[@]:1}" \
              "$@"
        "$PYTHON" again.py "$(uri s)"
        stop s
        no_errors
        [ "$lose" != ./restart ] || stop far
    done
}

for opts in cluster_size=64K data_file=x.data data_file=x.data,data_file_raw=on
do
    file=x.data
    [ $opts != cluster_size=64K ] || file=x.qcow2
    try "echo fdatasync $file 1 5 > $FAIL_IO"
done
# What is written last is what is lost first: with the client, without a flush.
opts=data_file=x.data
if ( requires_libnbd ) > /dev/null; then
    try ./restart qcow2ext-data-file="$(uri far)"
fi
