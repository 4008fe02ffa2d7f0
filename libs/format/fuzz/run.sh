#!/bin/sh
# Runs each fuzz target for a while: ./run.sh [seconds for each, 30] [targets, all].
#
# With the stable toolchain and a C++ compiler (libFuzzer comes as source), without cargo-fuzz and without sanitizers: safe Rust
# needs none of them, and what is looked for are panics, endless work and broken promises.
set -eu
cd "$(dirname "$0")"
seconds=${1:-30}
[ $# -gt 0 ] && shift
targets=${*:-apply compile document enrollment}
build=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz passes, so that libFuzzer sees which branches an input takes. Only for the target's own code: with --target,
# build scripts are left alone.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --quiet --locked --release --target "$host" --target-dir "$build"

for target in $targets; do
  mkdir -p "corpus/$target" "artifacts/$target"
  echo "fuzzing $target for $seconds s"
  "$build/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=4096 \
    -print_final_stats=1 -verbosity=0 -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target"
done
