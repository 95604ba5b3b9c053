#!/usr/bin/env bash
# A short soak; and that it finds leaks.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-img --version
requires_nbd_module

export SOAK_SEED=1 SOAK_SLACK=16384
soak=$srcdir/service/soak.sh
SOAK_ROUNDS=32 timeout 300 "$soak"

export SOAK_ROUNDS=12 SOAK_IMAGES=small
for plant in memory:resident fds:fds file:image; do
    export SOAK_PLANT=${plant%:*}
    status=0
    timeout 300 "$soak" > "$tmp/out" 2>&1 || status=$?
    cat "$tmp/out"
    [ $status -ne 0 ] || fail "a leak of $SOAK_PLANT was not found"
    grep "soak: small *${plant#*:}.*GROWS" "$tmp/out" ||
        fail "it failed for another reason than a leak of $SOAK_PLANT"
done
