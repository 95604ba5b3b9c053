#!/usr/bin/env bash
# The data file of a backing image is locked, too: nobody may write to it while
# a client reads through it.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module
cd "$tmp"

qemu-img create -q -f qcow2 -o data_file=base.data base.qcow2 1M
qemu-io -f qcow2 -c 'write -P 7 0 1M' base.qcow2
qemu-img create -q -f qcow2 -F qcow2 -b base.qcow2 x.qcow2 1M
cat > others.sh <<'END'
source "$abs_top_srcdir/tests/lib/functions.sh"
expect_fail lock qemu-io -f raw -c 'write 0 512' base.data
# Other readers do no harm.
qemu-io -r -f raw -c 'read -P 7 0 512' base.data
END
serve s --filter="$qcow2ext" file x.qcow2
nbdsh -u "$(uri s)" -c 'assert h.pread (512, 0) == b"\7" * 512' -c '
import subprocess, sys
sys.exit (subprocess.call (["bash", "others.sh"]))'
stop s
qemu-io -f raw -c 'write 0 512' base.data

# In use by a writer.
qemu-nbd -t -f raw -k "$tmp/q.sock" base.data &
cleanup_fn _kill_pid $!
wait_until "qemu-nbd listens" [ -S q.sock ]
expect_fail 'base.data.*in use' nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
            --run 'nbdinfo "$uri"'
nbdkit -U - --filter="$qcow2ext" file x.qcow2 qcow2ext-lock=false \
       --run 'nbdinfo "$uri"'
