#!/usr/bin/env bash
# Measures the operator with up to 10,000 devices on this machine, all programs on two processors together,
# and writes docs/generated/operator-capacity.md. Takes about ten minutes after the build. More arguments go
# to `flutecast-bench envelope`, such as `--sizes 1000,10000/20`. PROCESSORS=0-3 gives it others.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p flutecast-operator -p flutecast-dataplane -p flutecast-bench
command="bench/envelope.sh${*:+ $*}"
exec taskset --cpu-list "${PROCESSORS:-0,1}" "${CARGO_TARGET_DIR:-target}/release/flutecast-bench" envelope \
  --command "$command" --into docs/generated/operator-capacity.md "$@"
