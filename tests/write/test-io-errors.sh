#!/usr/bin/env bash
# Each system call on the image and on its data file fails once: the client is
# told, the server lives, the image is sound, and what was flushed is there.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

# A server that has lost something does not write any more, so that another one
# has to go on.
preload=LD_PRELOAD
[ -z "$QCOW2EXT_TEST_UNDER" ] || preload=UNDER_PRELOAD
cat > restart <<END
set -e
pid=\$(cat s.pid)
kill "\$pid"
while kill -0 "\$pid" 2>/dev/null &&
      ! grep -q '^State:.Z' "/proc/\$pid/status" 2>/dev/null; do
    sleep 0.02
done
rm -f s.pid s.sock
export $preload='$abs_top_builddir/tests/preload/.libs/fail-io.so'
nbdkit -P '$tmp/s.pid' -U '$tmp/s.sock' --filter='$qcow2ext' file x.qcow2 \
       < /dev/null
for ((i = 0; i < 3000; i++)); do
    [ ! -s s.pid ] || exit 0
    sleep 0.02
done
exit 1
END

for opts in cluster_size=4K cluster_size=64K,extended_l2=on \
            data_file=x.data data_file=x.data,data_file_raw=on unmapped; do
    if [ $opts = unmapped ]; then
        # A raw data file, but not what QEMU makes: nothing is mapped.
        rm x.*
        mkimage x.qcow2 --size 1M --cluster-bits 16 --data-file x.data --raw \
                --data-file-out x.data
        truncate -s 1M x.data
    else
        new_image -o $opts x.qcow2 1M
    fi
    files=(x.qcow2)
    [ ! -e x.data ] || files+=(x.data)
    export FAIL_IO=$tmp/control
    serve_preloaded fail-io s --filter="$qcow2ext" file x.qcow2
    "$PYTHON" "$lib/fail-io.py" "$(uri s)" "$FAIL_IO" \
              s.pid x.qcow2 "${files[@]}" || fail "$opts"
    stop s
    no_errors
    # Nor has the raw file what only a failed write has left.
    case $opts in
        *raw=on* | unmapped)
            qemu-img convert -f qcow2 -O raw x.qcow2 now.raw
            same_file now.raw x.data ;;
    esac
    qemu-img check -q -r leaks -f qcow2 x.qcow2
    clean
done
