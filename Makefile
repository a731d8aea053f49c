# The one entry for people and CI. `make` lists what there is.

CARGO ?= cargo
FUZZ_SECONDS ?= 30
SCHEDULES ?= 1000000
# Where what is built once is kept: the CNI peers, tools, what fuzzing found.
export WHEREABOUTS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/whereabouts

.DEFAULT_GOAL := help
.PHONY: help first-address first-cluster-address test lint deny fuzz simulate mutations bench side-by-side side-by-side-cluster peers clean-peers servers clean-servers

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 24

first-address: ## an address out of a pool that outlives the process
	$(CARGO) run --release -p whereabouts -- allocate 10.0.0.0/24

first-cluster-address: ## an address from a Kubernetes API server of its own, which ends with it
	$(CARGO) build --release -p whereabouts
	$(CARGO) run --release -p whereabouts-testbed --example first_cluster_address -- target/release/whereabouts

test: ## all tests; what this machine cannot run is named as skipped
	$(CARGO) test --workspace

lint: ## formatting, clippy and rustdoc, with warnings denied
	engine/tests/mutations/run --check
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items

deny: ## licences, duplicates and sources of all dependencies (deny.toml)
	"$$(.ci/tool cargo-deny 0.20.2)" --locked check licenses bans sources

fuzz: ## every fuzz target for FUZZ_SECONDS (30), with the nightly toolchain
	.ci/fuzz $(FUZZ_SECONDS)

simulate: ## SCHEDULES (1000000) schedules of the deterministic simulation
	$(CARGO) run --release -p whereabouts-engine --features testing --example simulate -- \
		--seeds 0..$(SCHEDULES) --jobs "$$(nproc)"

mutations: ## break the algorithm on purpose, and see the simulation notice
	engine/tests/mutations/run

bench: ## criterion benchmarks of the engine
	$(CARGO) bench -p whereabouts-bench

side-by-side: ## whole plugins measured beside each other: ours, host-local, and the floors
	$(CARGO) build --release -p whereabouts
	$(CARGO) build --release -p whereabouts-bench
	bench/side-by-side

side-by-side-cluster: ## the same before an API server of its own, some 3 minutes
	$(CARGO) build --release -p whereabouts
	$(CARGO) build --release -p whereabouts-bench
	bench/side-by-side-cluster

peers: ## build the Go programs that tests and benchmarks run beside ours
	cni/tests/peers/build

clean-peers: ## remove them
	rm -rf "$(WHEREABOUTS_CACHE)"/peers-*

servers: ## build what the tests of a cluster run, and get containerd and runc: once, some 15 minutes
	testbed/servers/build etcd kube-apiserver kube-controller-manager kube-scheduler kubelet
	testbed/runtime/build

clean-servers: ## remove it
	rm -rf "$(WHEREABOUTS_CACHE)"/servers-* "$(WHEREABOUTS_CACHE)"/runtime-*
