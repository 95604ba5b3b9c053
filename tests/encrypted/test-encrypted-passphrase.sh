#!/usr/bin/env bash
# The pass phrase in all forms that nbdkit has for passwords; several key slots;
# the key is searched for once, and locked in memory, with no privileges.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/encrypted.sh
source "$lib/encrypted.sh"
requires_nbd_module

new_encrypted "$xts256" x.qcow2 1M
encrypted_io 'write -P 0x5a 0 64k' 'write -P 0x3c 512k 1k'
as_raw x.qcow2 x.raw
same='check_disk "$uri" x.raw'
served "$same" file x.qcow2 qcow2ext-passphrase="$phrase"
served "$same" file x.qcow2 qcow2ext-passphrase=+phrase
served "$same" file x.qcow2 qcow2ext-passphrase=+"$tmp/phrase"
exec 7< phrase
served "$same" file x.qcow2 qcow2ext-passphrase=-7
exec 7<&-
# What ends in a new line.
(cat phrase; echo) > line
served "$same" file x.qcow2 qcow2ext-passphrase=+line

# Another slot, and the first one taken away.
printf other > other
qemu-img amend "${secret[@]}" --object secret,id=t,file=other --image-opts \
         -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10 \
         "$(opts x.qcow2)"
served "$same" file x.qcow2 qcow2ext-passphrase=+other
served "$same" file x.qcow2 qcow2ext-passphrase=+phrase
qemu-img amend --object secret,id=s,file=other --image-opts \
         -o encrypt.state=inactive,encrypt.keyslot=0 "$(opts x.qcow2)"
refused 'opens none' file x.qcow2 qcow2ext-passphrase=+phrase
served "$same" file x.qcow2 qcow2ext-passphrase=+other

# Several clients, one after another and at once: one search, at the start.
serve_log once -v -D qcow2ext.verbose=1 --filter="$qcow2ext" file x.qcow2 \
          qcow2ext-passphrase=+other
for ((i = 0; i < 3; i++)); do
    check_disk "$(uri once)" x.raw --connections 4
done
n=$(grep -c 'LUKS: .* iterations' once.log)
[ "$n" -eq 1 ] || fail "the key was searched for $n times"
# The pages of the phrase and of the volume key: locked, and not in dumps.  (The
# sanitizer has an mlock of its own, which does nothing.)
pid=$(cat once.pid)
[ "$QCOW2EXT_TEST_UNDER" = asan ] || "$PYTHON" - "$pid" <<'END'
import re, sys
locked = 0
for m in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", open (
        "/proc/%s/smaps" % sys.argv[1]).read ()):
    flags = re.search (r"(?m)^VmFlags:(.*)$", m)
    size = re.search (r"(?m)^Size: *(\d+) kB", m)
    if flags and {"lo", "dd"} <= set (flags.group (1).split ()):
        locked += int (size.group (1))
if locked < 8:
    sys.exit ("%d KiB are locked and not dumped" % locked)
END
stop once

# Nobody can be one who may lock nothing, too.
if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
    chmod 755 .
    chmod 644 x.qcow2 other
    cp "$qcow2ext" filter.so
    (ulimit -l 0
     setpriv --reuid=65534 --regid=65534 --clear-groups \
             nbdkit -r -U - --filter=./filter.so file x.qcow2 \
             qcow2ext-passphrase=+other --run 'nbdinfo --size "$uri"') > size
    [ "$(cat size)" -eq 1048576 ]
fi
