#!/usr/bin/env bash
# A rule for mutants that does not match exactly once, that meets another one, or
# that names what it does not do, fails the build; each is tried by a test.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
mutants=$abs_top_srcdir/tests/mutants
cd "$tmp"

apply ()
{
    "$PYTHON" "$mutants/apply.py" "$@"
}

mkdir -p in/room
cat > in/room/x.c <<'END'
one ();
two ();

same ();
same ();
END
echo 'int x;' > in/y.h

refused ()
{
    cat > rules
    rm -rf out
    expect_fail "$1" apply rules in out
}

{ echo '# Rules.'; cat; } > rules <<'END'
@ room/x.c: no_two
 one ();
-two ();
+if (!MUTANT (no_two))
+  two ();

 same ();

@ room/x.c:
+PAUSE_POINT ("begin");
 one ();
END
apply rules in out
cat > want <<'END'
PAUSE_POINT ("begin");
one ();
if (!MUTANT (no_two))
  two ();

same ();
same ();
END
cmp want out/room/x.c
cmp in/y.h out/y.h

refused 'found nowhere in room/x.c' <<'END'
@ room/x.c: a
-three ();
+MUTANT (a);
END
refused 'found 2 times in room/x.c' <<'END'
@ room/x.c: a
-same ();
+MUTANT (a);
END
refused 'change the same lines' <<'END'
@ room/x.c: a
-one ();
+MUTANT (a);
 two ();
@ room/x.c: b
-one ();
-two ();
+MUTANT (b);
END
refused 'change the same lines' <<'END'
@ room/x.c: a
 one ();
+MUTANT (a);
@ room/x.c: b
+MUTANT (b);
 two ();
END
refused 'it names a, but its lines use b' <<'END'
@ room/x.c: a
 one ();
+MUTANT (b);
END
refused 'neither a mutant nor a pause point' <<'END'
@ room/x.c:
-one ();
END
refused 'no such file' <<'END'
@ room/z.c: a
-one ();
+MUTANT (a);
END
[ ! -e out ] || fail "something was written"

# Each is tried.
apply --names "$mutants/rules.mut" > names
[ "$(wc -l < names)" -gt 60 ] || fail "where are the rules?"
while read -r name; do
    grep -q "\"$name\"" "$abs_top_srcdir"/tests/unit/test-unit-{mutants,races}.c \
         "$mutants/one-way-filter.c" || fail "no test tries $name"
done < names
