#!/usr/bin/env bash
# Measures the whole way on this machine and writes docs/performance.md. Takes about two minutes after the
# build. More arguments go to `flutecast-bench demo-path`, such as `--duration 5s`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p flutecast-operator -p flutecast-dataplane -p flutecast-bench
command="bench/run.sh${*:+ $*}"
exec "${CARGO_TARGET_DIR:-target}/release/flutecast-bench" demo-path --command "$command" --out docs/performance.md "$@"
