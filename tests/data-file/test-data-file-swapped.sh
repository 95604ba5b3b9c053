#!/usr/bin/env bash
# The owner of a directory renames things in it while an image there is opened.
# A link in the image's place, or in that of its directory, does not make the
# directory that it leads to one that the image may use.  The plugin below does
# the renaming, when it is opened or read, by which time the filter has opened
# the image itself.
# shellcheck source=tests/lib/functions.sh
source "$(dirname "$0")/../lib/functions.sh"
# shellcheck source=tests/lib/reading.sh
source "$lib/reading.sh"
requires nbdkit sh --version
requires_nbd_module
tmp=$(realpath "$tmp")
cd "$tmp"

mkdir secret elsewhere
mkimage good.qcow2 --data-file d.raw --data 0-3=1 --data-file-out d.raw \
        --reference ref.raw
mkimage evil.qcow2 --data-file "$tmp/secret/d.raw" --data 0-3=1
cp d.raw secret
cp d.raw secret/e.raw

# The plugin serves the file "below", whatever has the image's name, and runs
# at-open or at-read once.  The first read compares the image with the file.
cat > below <<'END_BELOW'
#!/bin/sh
hook ()
{
    [ ! -e "$tmp/at-$1" ] || { mv "$tmp/at-$1" "$tmp/now" && . "$tmp/now"; }
}
case $1 in
    config) ;;
    open) hook open ;;
    get_size) stat -c %s "$tmp/image" ;;
    pread)
        [ ! -e "$tmp/compared" ] || hook read
        touch "$tmp/compared"
        dd if="$tmp/image" skip="$4" count="$3" status=none \
           iflag=skip_bytes,count_bytes ;;
    *) exit 2 ;;
esac
END_BELOW
chmod +x below

# begin NBDKIT-ARGS...: a server that has seen a good image when it started.  With
# locks most of this is refused as not being the file that is locked.
begin ()
{
    rm -rf par
    mkdir -p par/pool
    cp d.raw par/pool
    cp good.qcow2 par/pool/x.qcow2
    cp good.qcow2 image
    serve_log s -r --filter="$qcow2ext" sh "$tmp/below" \
              file=par/pool/x.qcow2 qcow2ext-lock=false "$@"
}
# replace IMAGE: by renaming.
replace ()
{
    cp "$1" par/pool/new
    mv par/pool/new par/pool/x.qcow2
    cp "$1" image
}
good ()
{
    nbdsh -u "$(uri s)" -c 'ref = open ("ref.raw", "rb").read (262144)' \
          -c 'assert h.pread (262144, 0) == ref'
}
# refused_now PATTERN [HOOK COMMAND]: a client is, while that is done.
refused_now ()
{
    [ -z "$2" ] || echo "cd '$tmp' && $3" > "at-$2"
    rm -f compared
    expect_fail '.' nbdsh -u "$(uri s)" -c 'print (h.pread (65536, 0)[:16])'
    [ -z "$2" ] || [ ! -e "at-$2" ] || fail "nothing was renamed"
    grep -E "image (that )?names the external data file .*($1)" s.log ||
        fail "not refused for that: $(cat s.log)"
    stop s
}
link_to ()
{
    echo "ln -s '$tmp/$1' par/new && mv -T par/new par/pool/x.qcow2"
}
away="mv par/pool par/old && ln -s ../secret par/pool"

# Without renaming.
begin
good
replace evil.qcow2
refused_now 'outside'

# The image becomes a link; its directory does.
echo nothing > secret/hostname
begin
replace evil.qcow2
refused_now 'replaced' open "$(link_to secret/hostname)"
for when in open read; do
    begin
    replace evil.qcow2
    refused_now 'replaced|outside' "$when" "$away"
done

# An image that was deleted has no directory; nor has one that was moved.
begin
replace evil.qcow2
refused_now 'replaced' open "rm par/pool/x.qcow2"
begin
replace evil.qcow2
refused_now 'replaced' open "mv par/pool/x.qcow2 secret/x.qcow2"
rm secret/x.qcow2

# An image that names nothing is served, whatever is renamed.
mkimage plain.qcow2 --data 0-3=1
begin
replace plain.qcow2
rm -f compared
echo "cd '$tmp' && $(link_to secret/hostname)" > at-open
good
[ ! -e at-open ] || fail "nothing was renamed"
stop s

# The file has been seen below once.  That says nothing of another one.
begin
good
eval "$(link_to secret/hostname)"
cp evil.qcow2 image
refused_now 'not a local file'

# The link leads to a good image in that directory; what the plugin has open is a
# copy of it, which becomes another one once it was compared.
for names in "--data-file d.raw" \
             "--backing d.raw --backing-format raw" ""; do
    # shellcheck disable=SC2086
    mkimage secret/a.qcow2 $names --data 0-3=1
    begin
    eval "$(link_to secret/a.qcow2)"
    cp secret/a.qcow2 image
    mkimage evil2.qcow2 --data-file e.raw --data 0-3=1
    refused_now 'but the file does not' read 'cp evil2.qcow2 image'
done

# qcow2ext-allow= is the directory that was there when the server started.
begin qcow2ext-allow=par/pool
good
eval "$away"
cp evil.qcow2 secret/x.qcow2
cp evil.qcow2 image
refused_now 'not in a directory of qcow2ext-allow|cannot be opened'
rm secret/x.qcow2

# What owners do without harm: replace the image between connections, also by
# a link to one in another directory, with its data file beside link or file.
begin
for i in 1 2 3; do
    replace good.qcow2
    good
done
cp good.qcow2 elsewhere/y.qcow2
ln -sf "$tmp/elsewhere/y.qcow2" par/pool/x.qcow2
good
mv par/pool/d.raw elsewhere
good
mv par/pool par/old
ln -s old par/pool
good
stop s

# A backing file that the command line gives and that is reached through a link:
# what it names lies beside the link, or beside the file.
mkimage top.qcow2 --backing nothing --backing-format qcow2
rm -rf par
mkdir par
ln -s ../elsewhere/y.qcow2 par/y.qcow2
for dir in par elsewhere; do
    rm -f {par,elsewhere}/d.raw
    cp secret/d.raw "$dir"
    mkimage elsewhere/y.qcow2 --data-file d.raw --data 0-3=1
    accepted file top.qcow2 qcow2ext-backing-file=par/y.qcow2
    mkimage elsewhere/y.qcow2 --data-file "$tmp/$dir/d.raw" --data 0-3=1
    accepted file top.qcow2 qcow2ext-backing-file=par/y.qcow2
done
mkimage elsewhere/y.qcow2 --data-file "$tmp/secret/d.raw" --data 0-3=1
no_disk 'secret/d.raw and outside' file top.qcow2 \
        qcow2ext-backing-file=par/y.qcow2
