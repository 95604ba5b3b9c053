#!/usr/bin/env bash
# Bash completion, found where bash-completion looks for it: our parameters and
# what they take, beside what nbdkit's own completion says, in a shell that
# believes somebody pressed TAB.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# Another one may be given, to test with another version.
: "${bash_completion:=/usr/share/bash-completion/bash_completion}"
requires test -f "$bash_completion"
own=$(dirname "$bash_completion")/completions/nbdkit
requires test -f "$own"

mkdir "$tmp/d" "$tmp/home"
cp "$abs_top_srcdir/docs/nbdkit-qcow2ext.bash" "$tmp/d/nbdkit-qcow2ext"
# From 2.12 on, the names that nbdkit's own uses are defined in a file there.
compat=/etc/bash_completion.d/000_bash_completion_compat.bash
if [ -f "$compat" ]; then
    cp "$compat" "$tmp/d"
fi
mkdir "$tmp/work" "$tmp/work/images"
cd "$tmp/work"
touch disk.qcow2 disk.raw

# complete_line LINE: what TAB at its end offers, sorted, one a line, then the
# options of compopt.
cat > ../complete.bash <<'EOF'
line=$1
source "$bash_completion"
if ! [[ $(complete -p nbdkit) =~ -F\ ([^ ]+) ]]; then exit 1; fi
function=${BASH_REMATCH[1]}
# It works only in a shell with somebody at it.
compopt ()
{
    printf 'compopt %s\n' "$*" >> "$tmp/compopt"
}
# Words are split as readline does it: = and : are words, too.
COMP_LINE=$line
COMP_POINT=${#line}
COMP_WORDS=()
[[ -n $break_at_equals ]] || COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
for word in $line; do
    if [[ -z $break_at_equals ]]; then
        COMP_WORDS+=("$word")
        continue
    fi
    while [[ $word =~ ^([^=]*)(=)(.*)$ ]]; do
        [ -z "${BASH_REMATCH[1]}" ] || COMP_WORDS+=("${BASH_REMATCH[1]}")
        COMP_WORDS+=("=")
        word=${BASH_REMATCH[3]}
    done
    [ -z "$word" ] || COMP_WORDS+=("$word")
done
[[ $line != *' ' ]] || COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
COMPREPLY=()
"$function" nbdkit "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}" | sort
EOF

export break_at_equals=yes
offered ()
{
    rm -f "$tmp/compopt"
    HOME=$tmp/home BASH_COMPLETION_COMPAT_DIR=$tmp/d \
        BASH_COMPLETION_USER_FILE=/dev/null \
        bash_completion=$bash_completion COMP_WORDBREAKS=$' \t\n"'"'><=;|&(:" \
        bash --norc --noprofile ../complete.bash "$1" > "$tmp/offered" \
             2> "$tmp/stderr"
    cat "$tmp/stderr"
    [ ! -s "$tmp/stderr" ] || fail "completing '$1' prints"
}

# offers LINE WORD...: exactly these.
offers ()
{
    offered "$1"
    printf '%s\n' "${@:2}" | sort > "$tmp/want"
    diff -u "$tmp/want" "$tmp/offered" ||
        fail "not what was expected after '$1'"
}

# The parameters: all that --help knows.
nbdkit --help --filter="$qcow2ext" null > help
sed -n 's/^\(qcow2ext-[^=]*=\).*/\1/p' help > ../parameters
rm help
mapfile -t parameters < ../parameters
[ ${#parameters[@]} -ge 12 ] || fail "--help has few parameters"

n="nbdkit --filter=$qcow2ext"
offers "$n file qcow2ext-" "${parameters[@]}"
grep nospace "$tmp/compopt" || fail "a space is put after the ="
offers "$n file disk.qcow2 q" "${parameters[@]}"
offers "nbdkit --filter $qcow2ext file disk.qcow2 qcow2ext-ba" \
       qcow2ext-backing-file= qcow2ext-backing-format=
offers "nbdkit -r -U - --filter=cow --filter=$qcow2ext file qcow2ext-ex" \
       qcow2ext-exports=
# Beside the plugin's.
offered "$n null "
grep -qx size= "$tmp/offered" || fail "the plugin's parameters are lost"
grep -qx qcow2ext-data-file= "$tmp/offered"

# What they take.
offers "$n file disk.qcow2 qcow2ext-backing-format=" raw qcow2 auto
offers "$n file disk.qcow2 qcow2ext-backing-format=q" qcow2
offers "$n file disk.qcow2 qcow2ext-exports=" disk all
offers "$n file disk.qcow2 qcow2ext-lock=" true false
offers "$n file disk.qcow2 qcow2ext-check=t" true
offers "$n file disk.qcow2 qcow2ext-data-file=d" disk.qcow2 disk.raw
grep filenames "$tmp/compopt" || fail "file names are not marked as such"
offers "$n file disk.qcow2 qcow2ext-backing-file=" \
       disk.qcow2 disk.raw images none
offers "$n file disk.qcow2 qcow2ext-allow=" images none
offers "$n file disk.qcow2 qcow2ext-l2-cache-size=" ""
offers "$n file disk.qcow2 qcow2ext-snapshot=d" ""
offers "$n file disk.qcow2 qcow2ext-nonsense=" ""
# Where somebody has taken = out of the characters that end a word.
break_at_equals=
offers "$n file disk.qcow2 qcow2ext-lock=t" qcow2ext-lock=true
break_at_equals=yes

# The rest is as with nbdkit's own alone.
own_offers ()
{
    rm "$tmp/d/nbdkit-qcow2ext"
    echo "source '$own'" > "$tmp/d/nbdkit"
    offered "$1"
    mapfile -t rest < "$tmp/offered"
    rm "$tmp/d/nbdkit"
    cp "$abs_top_srcdir/docs/nbdkit-qcow2ext.bash" "$tmp/d/nbdkit-qcow2ext"
    [ ${#rest[@]} -ge "$2" ] || fail "nbdkit's own offers little for '$1'"
    offers "$1" "${rest[@]}"
}
own_offers 'nbdkit ' 20
own_offers 'nbdkit --f' 2
own_offers 'nbdkit -' 20
own_offers 'nbdkit --filter=' 20
own_offers 'nbdkit --filter ' 20
own_offers 'nbdkit --filter=cow nul' 1
own_offers 'nbdkit null ' 1
own_offers 'nbdkit --filter=cow null qcow2ext-' 0
own_offers 'nbdkit null size=' 0
own_offers "$n " 20
own_offers "$n f" 3
own_offers "$n file disk.q" 0

# Without nbdkit's own.
user_dir=$tmp/home/.local/share/bash-completion/completions
mkdir -p "$user_dir"
touch "$user_dir/nbdkit"
offers "$n file disk.qcow2 qcow2ext-bi" qcow2ext-bitmap= qcow2ext-bitmap-chain=
offers "$n file disk.qcow2 qcow2ext-lock=" true false
rm "$user_dir/nbdkit"

# And with a real shell at a terminal: what the line is after TAB.
cat > ../rc <<EOF
PS1='READY> '
bind 'set bell-style none'
bind 'set enable-bracketed-paste off'
show () { printf '%s ' "\$@" > ../line; printf 'DO%s\n' NE; }
source '$bash_completion'
EOF
"$PYTHON" - "$n" <<'EOF'
import os, pty, re, sys

filter = sys.argv[1]
tests = [
    ("file disk.qcow2 qcow2ext-snap\t1", "file disk.qcow2 qcow2ext-snapshot=1"),
    ("file disk.qcow2 qcow2ext-lock=f\tx",
     "file disk.qcow2 qcow2ext-lock=false x"),
    ("file disk.qcow2 qcow2ext-data-file=disk.r\tx",
     "file disk.qcow2 qcow2ext-data-file=disk.raw x"),
    ("file disk.qcow2 qcow2ext-allow=im\tx",
     "file disk.qcow2 qcow2ext-allow=images/x"),
    # No files where they make no sense.
    ("file disk.qcow2 qcow2ext-snapshot=disk.q\tx",
     "file disk.qcow2 qcow2ext-snapshot=disk.qx"),
    # The shell's own: files.
    ("file disk.q\tx", "file disk.qcow2 x"),
    ("file file=disk.q\tx", "file file=disk.qcow2 x"),
]

pid, fd = pty.fork()
if pid == 0:
    os.environ.update({
        "HOME": os.environ["tmp"] + "/home", "TERM": "dumb",
        "BASH_COMPLETION_COMPAT_DIR": os.environ["tmp"] + "/d",
        "BASH_COMPLETION_USER_FILE": "/dev/null",
    })
    os.execlp("bash", "bash", "--noprofile", "--rcfile",
              os.environ["tmp"] + "/rc", "-i")

def until(what):
    seen = b""
    while not re.search(what, seen, re.DOTALL):
        seen += os.read(fd, 4096)

until(b"READY> ")
failed = False
for typed, want in tests:
    # ^A goes to the beginning of the line.
    os.write(fd, ("%s %s\x01show \r" % (filter, typed)).encode())
    # readline may draw the prompt anew while the line changes.
    until(b"DONE.*READY> ")
    with open("../line") as f:
        got = f.read().rstrip()
    want = "%s %s" % (filter, want)
    print(repr(typed), "gives", repr(got))
    if got != want:
        print("expected", repr(want))
        failed = True
os.close(fd)
os.waitpid(pid, 0)
sys.exit(failed)
EOF
