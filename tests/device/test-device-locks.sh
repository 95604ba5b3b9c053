#!/usr/bin/env bash
# Devices are locked, in QEMU's way: the one with the image and that with the
# data.  One that cannot be written to is served read-only.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/writing.sh
source "$lib/writing.sh"
requires qemu-img --version
requires_loop_devices
requires_nbd_module
cd "$tmp"

truncate -s 8M data disk
loop_device data
data=$device
loop_device disk
disk=$device
new_image -o "data_file=$data,data_file_raw=on" x.qcow2 8M
cat x.qcow2 > "$disk"

serve s --filter="$qcow2ext" file "$disk" qcow2ext-data-file="$data"
# Others who come while there is a client.
cat > others.sh <<'END'
source "$lib/functions.sh"
expect_fail 'lock' qemu-io -f qcow2 -c 'write 0 1' "$disk"
expect_fail 'lock' qemu-io -f raw -c 'write 0 1' "$data"
expect_fail 'in use' nbdkit -U - --filter="$qcow2ext" file "$disk" \
            qcow2ext-data-file="$data" --run 'nbdinfo "$uri"'
expect_fail 'in use' nbdkit -U - --filter="$qcow2ext" file x.qcow2 \
            qcow2ext-data-file="$data" --run 'nbdinfo "$uri"'
END
export disk data
nbdsh -u "$(uri s)" -c 'h.pwrite (b"x" * 65536, 0)' -c '
import subprocess, sys
sys.exit (subprocess.call (["bash", "others.sh"]))'
# And after that, once the server has seen that the client is gone.
unlocked ()
{
    qemu-io -f raw -c 'write -q 0 1' "$data" && qemu-img info -f qcow2 "$disk"
}
wait_until "the locks are dropped" unlocked
stop s

# Devices that cannot be written to.
loop_device data -r
serve_log s --filter="$qcow2ext" file "$disk" qcow2ext-data-file="$device"
nbdsh -u "$(uri s)" -c 'assert h.is_read_only ()' \
      -c 'assert h.pread (512, 512) == b"x" * 512'
stop s
grep 'read-only' s.log || fail "no message"
loop_device disk -r
serve_log s --filter="$qcow2ext" file "$device" qcow2ext-data-file=data
nbdsh -u "$(uri s)" -c 'assert h.is_read_only ()' \
      -c 'assert h.pread (512, 512) == b"x" * 512'
stop s
grep 'read-only' s.log || fail "no message"
