#!/usr/bin/env bash
# make install: which files go where, with DESTDIR and with --with-filterdir,
# and that make uninstall takes them away again.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires make --version
cd "$tmp"
source=$(unconfigured_source)

# Those of a 'make -j check' that is around us.
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR

# variable NAME FILE: as configure set it, expanded.
variable ()
{
    printf 'include %s\nprint: ; @echo "$(%s)"\n' "$2" "$1" > mk
    make -s -C "$(dirname "$2")" -f "$tmp/mk" print
}

# files DIR: all files below, sorted.
files ()
{
    (cd "$1" && find . ! -type d | sed 's/^\.//' | sort)
}

# expect_files DIR FILE...
expect_files ()
{
    files "$1" > got
    printf '%s\n' "${@:2}" | sort > want
    diff -u want got || fail "make install installs something else"
}

# make_quietly ARGS...: in the build tree.
make_quietly ()
{
    make -C "$abs_top_builddir" DESTDIR="$tmp/dest" "$@" > log 2>&1 ||
        { cat log; fail "make $*"; }
}

docs=$abs_top_builddir/docs/Makefile
top=$abs_top_builddir/Makefile
man=()
if [ -s "$abs_top_builddir/docs/nbdkit-qcow2ext-filter.1" ]; then
    man=(man1/nbdkit-qcow2ext-filter.1)
fi
bash_dir=$(variable bashcompletiondir "$docs")
bash=()
if [ -n "$bash_dir" ]; then
    bash=(nbdkit-qcow2ext)
fi

# As it was configured.
make_quietly install
expect_files dest \
    "$(variable filterdir "$abs_top_builddir/filter/Makefile")/nbdkit-qcow2ext-filter.so" \
    "$(variable docdir "$top")/COPYING" \
    "${man[@]/#/$(variable mandir "$docs")/}" \
    "${bash[@]/#/$bash_dir/}"
make_quietly uninstall
[ -z "$(files dest)" ] || fail "make uninstall leaves $(files dest)"

# Elsewhere.  What is installed works.
dirs=(filterdir=/else/where/filters docdir=/doc mandir=/man
      bashcompletiondir=/bash)
make_quietly install "${dirs[@]}"
expect_files dest /else/where/filters/nbdkit-qcow2ext-filter.so /doc/COPYING \
    "${man[@]/#//man/}" "${bash[@]/#//bash/}"
nbdkit --help --filter=dest/else/where/filters/nbdkit-qcow2ext-filter.so null |
    grep qcow2ext-data-file
make_quietly uninstall "${dirs[@]}"
[ -z "$(files dest)" ] || fail "make uninstall leaves $(files dest)"

# What configure is told is what make uses.
eval "set -- $("$abs_top_builddir/config.status" --config)"
mkdir conf
cd conf
"$source/configure" "$@" --prefix=/opt --with-filterdir=/opt/filters \
    --with-bash-completion-dir=/opt/bash > ../log 2>&1 ||
    { cat ../log; fail "configure"; }
cd ..
[ "$(variable filterdir "$tmp/conf/filter/Makefile")" = /opt/filters ]
[ "$(variable bashcompletiondir "$tmp/conf/docs/Makefile")" = /opt/bash ]
[ "$(variable mandir "$tmp/conf/docs/Makefile")" = /opt/share/man ]
