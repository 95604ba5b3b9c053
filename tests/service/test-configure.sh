#!/usr/bin/env bash
# configure refuses where nbdkit is too old or its development files are not
# there, and says what is needed.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires pkg-config --version
cd "$tmp"
source=$(unconfigured_source)

# In place of what pkg-config knows.
mkdir pc
export PKG_CONFIG_LIBDIR=$tmp/pc
unset PKG_CONFIG_PATH

configure ()
{
    "$source/configure"
}
needed='nbdkit >= 1.32 and its development files are needed'

expect_fail "$needed" configure
grep -q 'nbdkit-plugin-dev on Debian' "$tmp/expect_fail.out"

printf '%s\n' 'Name: nbdkit' 'Version: 1.30.9' 'Description: old' > pc/nbdkit.pc
expect_fail "$needed" configure
grep -q '1\.30\.9' "$tmp/expect_fail.out"

# This one is new enough, but says nothing else.
sed -i 's/1\.30\.9/1.32.0/' pc/nbdkit.pc
expect_fail 'nbdkit.pc does not say filterdir' configure
