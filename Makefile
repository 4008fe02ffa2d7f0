# The commands of this repository. `make` alone lists them.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

tools := $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/flutecast/tools
nextest := $(tools)/cargo-nextest-0.9.151/bin/cargo-nextest
deny := $(tools)/cargo-deny-0.20.2/bin/cargo-deny
target := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# A failing test says what it saw; frames of the runtime around it only bury that.
export RUST_BACKTRACE = 0
# Crates in a fresh checkout are exactly those of Cargo.lock.
locked := --locked

.PHONY: help
help: ## lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# --- for users ---

# Built without optimisation: that is the shortest way to a picture (a release build takes several times as
# long), it serves `make test` too, and the line's few dozen messages a second need no more.
.PHONY: demo
demo: need-cargo ## starts the demo factory and prints where to look; Ctrl-C ends it
	@echo "building Flutecast (a few minutes the first time)"
	@cargo build $(locked) --quiet --bins -p flutecast-operator -p flutecast-dataplane -p flutecast-demo
	@exec $(target)/debug/flutecast-demo $(DEMO_ARGS)

.PHONY: test
test: need-cargo ## everything, on real parts
	@xtask/test $(nextest) $(deny) $(target)

.PHONY: bench
bench: need-cargo ## measures latency, memory and rates in a release build, and writes docs/performance.md
	@bench/run.sh $(BENCH_ARGS)

.PHONY: envelope
envelope: need-cargo ## measures the operator with up to 10,000 devices on a real API server, and writes docs/generated/operator-capacity.md
	@cargo xtask test-tools nats-server etcd kube-apiserver kubectl >/dev/null
	@bench/envelope.sh $(ENVELOPE_ARGS)

# Another version: FLUTECAST_VERSION=0.2.0 make images. The profile of Cargo.toml that they are built with:
# IMAGE_PROFILE.
IMAGE_PROFILE ?= image

.PHONY: images
images: need-cargo ## OCI archives of operator and data plane in target/images, for containerd, docker, podman, kind
	@echo "building the images (a few minutes the first time)"
	@cargo xtask images --profile $(IMAGE_PROFILE)

.PHONY: images-next
images-next: need-cargo ## the same as the next version, with one more field: what upgrades are tested with
	@echo "building the next version's images (about two minutes after make images)"
	@cargo xtask images --profile $(IMAGE_PROFILE) --next

.PHONY: images-twice
images-twice: need-cargo ## builds the commit's images here and in a second folder, and compares their digests
	@cargo xtask images --profile $(IMAGE_PROFILE) --twice

# With Argo CD on it: make cluster CLUSTER_ARGS=--argocd
.PHONY: cluster
cluster: need-cargo system ## a real Kubernetes cluster on this machine, as root; prints KUBECONFIG
	@echo "bringing a cluster up (10 s; the first time its programs are built before, up to 15 minutes on two cores)"
	@cargo build $(locked) --quiet -p flutecast-testbed --bin flutecast-cluster
	@$(target)/debug/flutecast-cluster up $(CLUSTER_ARGS)

# NATS's image is made from the nats-server that all tests use.
.PHONY: factory
factory: cluster images ## on that cluster a release of the chart, with a NATS of its own; says how it is reached
	@env -u KUBECONFIG $(target)/debug/flutecast-cluster factory

# Built before the tests, not by them: no test may take that long. FLUTECAST_IMAGES names a folder that holds
# them already; a machine that can run no cluster, and is given none, needs none.
.PHONY: test-images
test-images: need-cargo
	@if [ -z "$${FLUTECAST_IMAGES:-}" ] && { [ -n "$${KUBECONFIG:-}" ] || $(target)/debug/flutecast-cluster check >/dev/null 2>&1; }; then \
		$(MAKE) images images-next; \
	fi

# E2E_ARGS are nextest's, such as --no-capture.
.PHONY: e2e
e2e: need-cargo tools ## the tests that need a cluster: this machine's own, or that of KUBECONFIG
	@cargo build $(locked) --quiet --workspace --bins
	@$(MAKE) test-images
	@e2e/tests/run $(target)/debug/flutecast-cluster cluster $(nextest) nextest run $(locked) -p flutecast-e2e $(E2E_ARGS)

# SOAK_ARGS='--scale 2000/1' measures a part.
SOAK_ARGS ?= --modes 'as shipped,legacy,structured-merge,server-side' --minutes 10 --scale 2000/1,2000/10

.PHONY: gitops-soak
gitops-soak: cluster test-images ## measures Argo CD and Flux with a factory for an hour, and writes docs/generated/gitops-*.md
	@env -u KUBECONFIG cargo run $(locked) --quiet -p flutecast-e2e --example gitops-argocd -- \
		$(SOAK_ARGS) --into docs/generated/gitops-argocd.md
	@env -u KUBECONFIG cargo run $(locked) --quiet -p flutecast-e2e --example gitops-flux -- --into docs/generated/gitops-flux.md

.PHONY: cluster-down
cluster-down: need-cargo ## ends it and removes all that belonged to it, a factory included
	@cargo build $(locked) --quiet -p flutecast-testbed --bin flutecast-cluster
	@$(target)/debug/flutecast-cluster down

# --- for contributors ---

# Unit tests that start servers or take long belong to `make test`: those of testkit and testbed, and the
# modules `real_nats`, `tests::load` and `rebalance::simulation`.
.PHONY: check
check: need-cargo nextest lint ## the fast inner loop: format, clippy, unit tests without I/O, tidiness
	@$(nextest) nextest run $(locked) --workspace --exclude flutecast-testkit --exclude flutecast-testbed \
		--lib --bins --test tidy -E 'not test(/real_nats::|tests::load::|rebalance::simulation::/)'

.PHONY: lint
lint: need-cargo ## format and clippy
	@cargo fmt --all --check
	@cargo clippy $(locked) --quiet --workspace --all-targets -- -D warnings

.PHONY: deny
deny: need-cargo ## licences, bans and sources of all dependencies
	@xtask/install-tools deny
	@$(deny) --log-level error check --hide-inclusion-graph bans licenses sources

FUZZ_SECONDS ?= 60

.PHONY: fuzz
fuzz: need-cargo ## hostile payloads, formats and documents; FUZZ_SECONDS=60 for each target
	@libs/format/fuzz/run.sh $(FUZZ_SECONDS) 2>&1 | { grep -vE 'NEW_FUNC|__sanitizer_' || true; }

.PHONY: crds
crds: need-cargo ## writes crds/yaml and docs/api.md from the types
	@cargo run $(locked) --quiet -p flutecast-crds --bin crdgen -- crds/yaml docs/api.md

.PHONY: crds-released
crds-released: ## at a release: what API servers out there store is from now on what today's definitions take
	@crds/released/move-on.sh

.PHONY: rbac
rbac: need-cargo ## writes manifests/*/rbac.yaml from the rights that the code states; then make charts
	@cargo run $(locked) --quiet -p flutecast-operator --example rbac
	@cargo run $(locked) --quiet -p flutecast-dataplane --example rbac

.PHONY: transcripts
transcripts: need-cargo tools ## docs/generated/transcripts.md: what kubectl shows, from a real API server
	@FLUTECAST_WRITE_TRANSCRIPTS=1 cargo test $(locked) --quiet -p flutecast-operator --test api_server kubectl::

.PHONY: charts
charts: need-cargo ## writes the generated files in charts/, from manifests/ and crds/yaml
	@cargo xtask charts

# From Go modules, so that the same versions give the same files.
.PHONY: chart-schemas
chart-schemas: need-cargo ## brings the schemas that charts are held against, from Kubernetes, the Gateway API and prometheus-operator
	@charts/schemas/update $(target)

.PHONY: chart-test
chart-test: need-cargo nextest ## the charts alone: lint, schema, snapshots, an API server that takes them
	@$(nextest) nextest run $(locked) -p flutecast-e2e --test charts

.PHONY: screenshot
screenshot: need-cargo system ## docs/dashboard.png from the running demo
	@cargo build $(locked) --quiet --bins -p flutecast-operator -p flutecast-dataplane -p flutecast-demo
	@cargo run $(locked) --quiet -p flutecast-e2e --example screenshot -- docs/dashboard.png

# --- tools ---

# The Go programs are built before the tests, not by them: no test may take that long.
.PHONY: tools
tools: need-cargo nextest system ## brings the tools that tests need, pinned, into ~/.cache/flutecast/tools
	@cargo xtask test-tools

.PHONY: nextest
nextest:
	@xtask/install-tools nextest

.PHONY: system
system:
	@xtask/install-tools system

.PHONY: need-cargo
need-cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer with rustup (see README.md)" >&2; exit 1; }
