#!/usr/bin/env bash
# nbdkit --dump-plugin tells scripts what this build can do: each key once, and
# libraries as the filter is linked or can load them.  Before nbdkit 1.36 filters
# are not asked; then nothing of ours is there, and --help names the version.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
cd "$tmp"

version=$(sed -n 's/^#define PACKAGE_VERSION "\(.*\)"$/\1/p' \
              "$abs_top_builddir/build-config.h")
[ -n "$version" ]

nbdkit --help --filter="$qcow2ext" null > help
grep -F "nbdkit qcow2ext filter $version" help ||
    fail "--help does not show our version"

nbdkit --dump-plugin --filter="$qcow2ext" null > dump
# What the plugin says is there in any case.
grep '^has_pread=1$' dump
grep '^qcow2ext_' dump > ours || :
cat ours

minor=$(nbdkit_minor)
if [ "$minor" -lt 36 ]; then
    [ ! -s ours ] || fail "nbdkit 1.$minor is said not to ask filters"
    exit 0
fi

# linked LIBRARY: yes or no.
linked ()
{
    if ldd "$qcow2ext" | grep -q "lib$1\.so"; then echo yes; else echo no; fi
}

nbdkit -U - --filter="$qcow2ext" null qcow2ext-data-file=nbd://localhost \
       --run true > nbd.log 2>&1 || :
libnbd=yes
! grep 'built without libnbd' nbd.log || libnbd=no

libgcrypt=no
! grep -q '^#define HAVE_LIBGCRYPT 1' "$abs_top_builddir/build-config.h" ||
    libgcrypt=yes

cat > want <<EOF
qcow2ext_version=$version
qcow2ext_qcow2_versions=2 3
qcow2ext_zlib=$(linked z)
qcow2ext_zstd=$(linked zstd)
qcow2ext_libdeflate=$(linked deflate)
qcow2ext_libnbd=$libnbd
qcow2ext_libgcrypt=$libgcrypt
EOF
while IFS= read -r line; do
    grep -qxF -- "$line" ours || fail "--dump-plugin does not say $line"
done < want
for feature in data-file data-file-raw extended-l2 compression-type bitmaps; do
    grep -Eq "^qcow2ext_qcow2_features=(.* )?$feature( |\$)" ours ||
        fail "$feature is not among the features"
done
cut -d= -f1 ours | sort | uniq -d > twice
[ ! -s twice ] || fail "given twice: $(cat twice)"
