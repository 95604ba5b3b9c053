#!/usr/bin/env bash
# The manual page's table of qemu-nbd's options is complete, and what it says of
# nbdkit can be used with this filter.
# shellcheck disable=SC2016
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
requires qemu-nbd --version
requires qemu-img --version
requires nbdinfo --version
cd "$tmp"

page=$abs_top_srcdir/docs/nbdkit-qcow2ext-filter.pod
sed -n '/^=head1 MOVING/,/^=head1 BESIDE/s/^ //p' "$page" > table
cut -c 1-31 table > left
cut -c 32- table > right
cat right

# Every option that qemu-nbd has, but --help and --version.
qemu-nbd --help | grep -Eo -- '(^ +|, )--?[a-zA-Z][-a-z]*' |
    grep -Eo -- '-.*' | sort -u |
    grep -Evx -- '-h|--help|-V|--version' > options
[ "$(wc -l < options)" -ge 40 ] || fail "few options were found"
while IFS= read -r o; do
    grep -Eq -- "(^|, )$o([=, :]|\$)" left ||
        fail "the table does not have $o"
done < options

# Parameters, filters and options of nbdkit that exist.
nbdkit --help --filter="$qcow2ext" null > help
filterdir=$(nbdkit --dump-config | sed -n 's/^filterdir=//p')
{ nbdkit --long-options; nbdkit --short-options; } > nbdkit-options
for word in $(cat right); do
    word=${word%[;,]}
    case $word in
        qcow2ext-*=*) grep -q "^${word%%=*}=" help ;;
        --filter=qcow2ext) ;;
        --filter=*) test -f "$filterdir/nbdkit-${word#*=}-filter.so" ;;
        -D | -unix | -d | --list) ;; # a debug flag, nbd-client, nbdinfo
        -[a-zA-Z]*| --[a-z]*) grep -qxF -- "${word%%=*}" nbdkit-options ;;
        *) continue ;;
    esac || fail "there is no $word"
done

# used PATTERN ARGS...: nbdinfo shows PATTERN of a server with these arguments.
qemu-img create -q -f qcow2 d.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 1M' d.qcow2
qemu-img snapshot -c NAME d.qcow2
qemu-img bitmap --add d.qcow2 NAME
used ()
{
    local pattern=$1
    shift
    nbdkit -U - "$@" --run 'nbdinfo "$uri" || :' > out 2>&1
    cat out
    grep -Eq -- "$pattern" out || fail "no '$pattern' with $*"
}
q=--filter=$qcow2ext
used 'export-size: 67108864' "$q" file d.qcow2
used 'is_read_only: true' -r "$q" file d.qcow2
used 'is_read_only: true' "$q" file d.qcow2 qcow2ext-snapshot=NAME
used 'is_read_only: true' "$q" file d.qcow2 qcow2ext-bitmap=NAME
used 'export="NAME"' -e NAME --filter=exportname "$q" file d.qcow2 \
     exportname-strict=true exportname=NAME
used 'No such file|not permitted' -e OTHER --filter=exportname "$q" \
     file d.qcow2 exportname-strict=true exportname=NAME
used 'description: TEXT' --filter=exportname "$q" file d.qcow2 \
     exportdesc=fixed:TEXT
used 'export-size: 67043328' --filter=offset "$q" file d.qcow2 offset=64K
used 'is_read_only: false' --filter=cow "$q" file d.qcow2
used 'can_fua: true' --filter=fua "$q" file d.qcow2 fuamode=force
used 'can_fua: true' --filter=fua "$q" file d.qcow2 fuamode=discard
used 'export-size' -t 4 -v -D qcow2ext.verbose=1 "$q" file d.qcow2 \
     qcow2ext-lock=false qcow2ext-l2-cache-size=1M
# A second client is turned away, and the server ends with its last client.
serve limit --filter=limit "$q" file d.qcow2 limit=1
requires_nbd_module
nbdsh -u "$(uri limit)" -c - <<EOF
import nbd
second = nbd.NBD()
try:
    second.connect_uri("$(uri limit)")
except nbd.Error:
    pass
else:
    raise SystemExit("a second client got in")
EOF
serve last --filter=exitlast "$q" file d.qcow2
nbdinfo "$(uri last)" > /dev/null
pid=$(< last.pid)
ended () { ! _running "$pid"; }
wait_until "the server ends" ended
