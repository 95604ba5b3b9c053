#!/usr/bin/env bash
# Images on another machine, by the ssh plugin, are served to four connections at
# once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdkit ssh --version
requires test -x /usr/sbin/sshd
requires_nbd_module
cd "$tmp"

below_images
chmod 755 "$tmp"
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f user
cp user.pub authorized
port=$("$PYTHON" -c 'import socket
s = socket.socket ()
s.bind (("127.0.0.1", 0))
print (s.getsockname ()[1])')
cat > sshd.conf <<END
Port $port
ListenAddress 127.0.0.1
HostKey $tmp/host
PidFile $tmp/sshd.pid
AuthorizedKeysFile $tmp/authorized
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
Subsystem sftp internal-sftp
END
# It wants this directory, and distributions make it only with the service.
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
/usr/sbin/sshd -D -e -f sshd.conf 2> sshd.log &
cleanup_fn kill $!
wait_until "sshd listens" grep -q listening sshd.log
over ssh host=127.0.0.1 port="$port" identity="$tmp/user" \
     verify-remote-host=false "$tmp/IMAGE"
