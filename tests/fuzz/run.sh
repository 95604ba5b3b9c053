#!/usr/bin/env bash
#
# Builds the fuzzers and runs them, each for a while: see README.  This is
# what 'make fuzz' calls, with the top of a configured build directory.

set -e
set -o pipefail

srcdir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
builddir=$1
[ -f "$builddir/build-config.h" ] ||
    { echo "usage: run.sh BUILDDIR, which is configured" >&2; exit 1; }

seconds=${FUZZ_SECONDS:-60}
targets=${FUZZ_TARGET:-header mapping snapshots bitmaps decode check session pair compress luks names}
engine=${FUZZ_ENGINE:-libfuzzer}
work=${FUZZ_DIR:-$builddir/fuzz}
jobs=${FUZZ_JOBS:-1}

max_len=32768
sanitize=-fsanitize=address,undefined
flags=(-std=gnu11 -O2 -g -fno-omit-frame-pointer
       -I"$builddir" -I"$srcdir/filter" -I"$srcdir/filter/qcow2"
       -I"$srcdir/tests/model"
       -I"$srcdir/tests/fuzz")
# shellcheck disable=SC2054
libs=(-Wl,--wrap=decoder_run -lz -lzstd -lpthread)
if grep -q '^#define HAVE_LIBDEFLATE 1' "$builddir/build-config.h"; then
    libs+=(-ldeflate)
fi
engine_sources=("$srcdir"/filter/qcow2/*/*.c
                "$srcdir"/filter/{block-lock,export-name,store-crypt}.c)
common=(fuzz/fuzz.c)
for f in guard-decoder hostile-images hostile-judge hostile image-checker \
         image-maker image-walker store-memory toy-cipher; do
    common+=("model/$f.c")
done

# side_by_side COMMAND ARGS...: runs it beside others, no more than there are
# jobs; all_done: waits for all, and says whether one failed.
running=0
some_failed=0
reap ()
{
    wait -n || some_failed=1
    running=$((running - 1))
}

side_by_side ()
{
    while [ "$running" -ge "$jobs" ]; do
        reap
    done
    "$@" &
    running=$((running + 1))
}

all_done ()
{
    local status
    while [ "$running" -gt 0 ]; do
        reap
    done
    status=$some_failed
    some_failed=0
    return "$status"
}

# compile CC DIRECTORY FLAGS... -- FILES...: into objects, each once.
compile ()
{
    local cc=$1 dir=$2 args=() o
    shift 2
    while [ "$1" != -- ]; do
        args+=("$1")
        shift
    done
    shift
    mkdir -p "$dir"
    for f; do
        o=$dir/$(basename "$f" .c).o
        if [ ! "$o" -nt "$f" ] || [ -n "$(find "$srcdir/filter/qcow2" \
                "$srcdir/tests" -name '*.h' -newer "$o" -print -quit)" ]; then
            side_by_side "$cc" "${flags[@]}" "${args[@]}" -c "$f" -o "$o"
        fi
    done
    all_done
}

# build CC DIRECTORY INSTRUMENTATION FLAGS...: all sources.  What the tests
# are made of is not instrumented: fuzzers should explore the engine, and most
# of the time went into counting what the walker does.
build ()
{
    local cc=$1 dir=$2 instrumentation=$3
    shift 3
    compile "$cc" "$dir" "$instrumentation" "$@" -- "${engine_sources[@]}"
    compile clang "$dir" "$@" -- "${common[@]/#/$srcdir/tests/}" \
        "$srcdir"/tests/fuzz/fuzz-*.c "$srcdir/tests/fuzz/replay.c"
}

# objects DIRECTORY TARGET: what a target is made of.
objects ()
{
    local f
    for f in "${engine_sources[@]}" "${common[@]}"; do
        echo "$1/$(basename "$f" .c).o"
    done
    echo "$1/fuzz-$2.o"
}

# The seeds come from the same programs, without a fuzzer.
seeds ()
{
    local t=$1
    mkdir -p "$work/seeds/$t" "$work/corpus/$t" "$work/finds"
    "$work/replay-$t" --seeds "$work/seeds/$t" >/dev/null
    for f in "$srcdir/tests/fuzz/regress/$t"-*; do
        if [ -e "$f" ]; then
            cp "$f" "$work/seeds/$t"
        fi
    done
    if [ -e "$srcdir/tests/fuzz/corpus/$t.tar.xz" ]; then
        tar -xf "$srcdir/tests/fuzz/corpus/$t.tar.xz" -C "$work/seeds/$t"
    fi
}

# The fewest inputs that reach what the corpus reaches, in an archive.
minimise ()
{
    local t=$1 dir=$work/minimal/$1
    rm -rf "$dir"
    mkdir -p "$dir" "$work/minimal"
    "$work/fuzz-$t" -merge=1 -max_len=$max_len -timeout=20 \
        -rss_limit_mb=2048 "$dir" "$work/corpus/$t" "$work/seeds/$t" \
        >"$work/$t-merge.log" 2>&1 ||
        { echo "$t: FAILED: see $work/$t-merge.log"; return 1; }
    tar -c --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        -C "$dir" . | xz -9e >"$work/minimal/$t.tar.xz"
    printf '%s: %s inputs in %s bytes\n' "$t" \
        "$(find "$dir" -type f | wc -l)" \
        "$(stat -c %s "$work/minimal/$t.tar.xz")"
}

run_libfuzzer ()
{
    local t=$1 log=$work/$1.log status=0 line
    # Keeping account of the rarity of features takes longer than the inputs,
    # and so do fresh pages: let freed memory be used again soon.
    ASAN_OPTIONS=quarantine_size_mb=4:malloc_context_size=6:${ASAN_OPTIONS:-} \
    "$work/fuzz-$t" -seed="${FUZZ_SEED:-0}" -max_total_time="$seconds" \
        -max_len=$max_len -timeout=20 -entropic=0 \
        -rss_limit_mb=2048 -malloc_limit_mb=256 -print_final_stats=1 \
        -artifact_prefix="$work/finds/$t-" "$work/corpus/$t" "$work/seeds/$t" \
        >"$log" 2>&1 || status=$?
    line=$(grep -E '^#[0-9]+.*cov: ' "$log" | tail -n 1)
    printf '%s: %s executions, %s edges, %s features, %s inputs kept, %s\n' \
        "$t" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(sed -n 's/.*cov: \([0-9]*\).*/\1/p' <<<"$line")" \
        "$(sed -n 's/.*ft: \([0-9]*\).*/\1/p' <<<"$line")" \
        "$(sed -n 's/.*corp: \([0-9]*\).*/\1/p' <<<"$line")" \
        "$([ "$status" -eq 0 ] && echo "nothing found" ||
           echo "FOUND SOMETHING: see $log")"
    return "$status"
}

run_afl ()
{
    local t=$1 log=$work/$1-afl.log out=$work/afl/$1 n
    mkdir -p "$out"
    AFL_SKIP_CPUFREQ=1 AFL_NO_UI=1 AFL_NO_AFFINITY=1 AFL_AUTORESUME=1 \
    AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 \
        timeout "$((seconds + 60))" \
        afl-fuzz -V "$seconds" -t 10000 -m none -G $max_len \
        -i "$work/seeds/$t" -o "$out" -- "$work/afl-$t" >"$log" 2>&1 || :
    if ! [ -e "$out/default/fuzzer_stats" ]; then
        echo "$t: FAILED to start: see $log"
        return 1
    fi
    n=$(find "$out/default/crashes" "$out/default/hangs" -name 'id:*' | wc -l)
    printf '%s: %s executions, %s of the map, %s inputs kept, %s\n' "$t" \
        "$(sed -n 's/^execs_done *: *//p' "$out/default/fuzzer_stats")" \
        "$(sed -n 's/^bitmap_cvg *: *//p' "$out/default/fuzzer_stats")" \
        "$(sed -n 's/^corpus_count *: *//p' "$out/default/fuzzer_stats")" \
        "$([ "$n" -eq 0 ] && echo "nothing found" ||
           echo "FOUND SOMETHING: $n in $out/default")"
    [ "$n" -eq 0 ]
}

# Which lines of the engine the corpus reaches.
coverage ()
{
    local t dir=$work/coverage args=() profiles=()
    build clang "$dir" -fcoverage-mapping -fprofile-instr-generate
    for t in $targets; do
        # shellcheck disable=SC2046
        clang -fprofile-instr-generate $(objects "$dir" "$t") \
            "$dir/replay.o" "${libs[@]}" -o "$dir/replay-$t"
        find "$work/corpus/$t" "$work/seeds/$t" -type f -print0 |
            LLVM_PROFILE_FILE=$dir/$t-%p.profraw \
                xargs -0 -n 500 "$dir/replay-$t" >/dev/null
        llvm-profdata merge -o "$dir/$t.profdata" "$dir/$t"-*.profraw
        rm -f "$dir/$t"-*.profraw
        printf '%s: %s of the lines in filter/qcow2\n' "$t" \
            "$(llvm-cov report "$dir/replay-$t" \
                   -instr-profile="$dir/$t.profdata" \
                   -ignore-filename-regex=/tests/ |
                   awk '$1 == "TOTAL" { print $10 }')"
        args+=(-object "$dir/replay-$t")
        profiles+=("$dir/$t.profdata")
    done
    llvm-profdata merge -o "$dir/all.profdata" "${profiles[@]}"
    llvm-cov report "${args[@]}" -instr-profile="$dir/all.profdata" \
        -ignore-filename-regex=/tests/ |
        awk '$1 == "Filename" || $1 ~ /\.c$/ || $1 == "TOTAL" \
             { printf "  %-16s %8s lines, %7s covered\n", $1, $8, $10 }' |
        sed '/Filename/d'
}

mkdir -p "$work"
build clang "$work/plain" $sanitize $sanitize
for t in $targets; do
    # shellcheck disable=SC2046
    side_by_side clang $sanitize $(objects "$work/plain" "$t") \
        "$work/plain/replay.o" "${libs[@]}" -o "$work/replay-$t"
done
all_done
for t in $targets; do
    side_by_side seeds "$t"
done
all_done

case $engine in
    libfuzzer | minimise)
        build clang "$work/libfuzzer" -fsanitize=fuzzer-no-link $sanitize \
            -DFUZZ_LIBFUZZER
        for t in $targets; do
            # shellcheck disable=SC2046
            side_by_side clang $sanitize,fuzzer \
                $(objects "$work/libfuzzer" "$t") "${libs[@]}" \
                -o "$work/fuzz-$t"
        done
        all_done
        for t in $targets; do
            if [ "$engine" = minimise ]; then
                side_by_side minimise "$t"
            else
                side_by_side run_libfuzzer "$t"
            fi
        done
        ;;
    afl)
        export AFL_QUIET=1
        build afl-clang-fast "$work/afl-objects" -fsanitize=fuzzer-no-link
        for t in $targets; do
            # shellcheck disable=SC2046
            afl-clang-fast -fsanitize=fuzzer \
                $(objects "$work/afl-objects" "$t") "${libs[@]}" \
                -o "$work/afl-$t"
            side_by_side run_afl "$t"
        done
        ;;
    coverage)
        coverage
        ;;
    *)
        echo "FUZZ_ENGINE is libfuzzer, afl, coverage or minimise" >&2
        exit 1
        ;;
esac
all_done
