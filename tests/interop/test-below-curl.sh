#!/usr/bin/env bash
# Images on a web server, by the curl plugin, are served to four connections at
# once, with data and backing files by parameter.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires qemu-img --version
requires nbdkit curl --version
requires_nbd_module
cd "$tmp"

below_images
mkdir www
cp [xzdo].qcow2 www/
"$PYTHON" "$lib/range-server.py" "$tmp/www" "$tmp/port" &
cleanup_fn kill $!
wait_until "the web server listens" [ -s port ]
port=$(< port)
over curl http://127.0.0.1:"$port"/IMAGE
no_disk '404|curl' curl "http://127.0.0.1:$port/none.qcow2"
