#!/bin/sh
# One step of this project's own pipeline: scripts/own.sh build|test|measure|page OUTPUT
#
# A step has a home of its own, so the toolchain is looked for in the user's
# real one, unless CARGO_HOME and RUSTUP_HOME say where it is. What is built
# lies in OWN_TARGET_DIR, else in the user's cache: dependencies are then built once, not once a run.
set -eu
verb=$1
output=$2

home=$(eval echo "~$(id -un)")
export CARGO_HOME="${CARGO_HOME:-$home/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$home/.rustup}"
export CARGO_TARGET_DIR="${OWN_TARGET_DIR:-$home/.cache/pv-own-target}"
PATH="$PATH:$CARGO_HOME/bin"
command -v cargo >/dev/null || { echo "there is no cargo, neither on PATH nor in $CARGO_HOME/bin" >&2; exit 1; }

case $verb in
build)
    # Each run builds in another directory, which is another package to cargo: what earlier runs left is of no use.
    [ -n "${OWN_TARGET_DIR:-}" ] || cargo clean --quiet --package pv
    cargo build --quiet --release --locked
    cp "$CARGO_TARGET_DIR/release/pv" "$output"
    ;;
test)
    # The list of the tests is the same each time; times and order are not.
    cargo test --quiet --release --locked --lib -- --format pretty >"$TMPDIR/log" 2>&1 || { cat "$TMPDIR/log"; exit 1; }
    grep '^test ' "$TMPDIR/log" | grep -v '^test result' | LC_ALL=C sort >"$output"
    wc -l <"$output"
    ;;
measure)
    # Little data and few rounds: that it works is what a run of the pipeline is to find out. `make bench` takes its time.
    export PV_BENCH=quick
    cargo bench --quiet --locked
    mkdir -p "$output"
    cp "$CARGO_TARGET_DIR/bench/quick/numbers.json" "$CARGO_TARGET_DIR/bench/quick/store.json" "$output/"
    ;;
page)
    cargo bench --quiet --locked --bench page -- work/own "$output"
    ;;
*)
    echo "usage: scripts/own.sh build|test|measure|page OUTPUT" >&2
    exit 2
    ;;
esac
