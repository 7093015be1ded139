# What one does with this tree, one target each. `make demo` needs cargo and a Linux kernel, nothing else.
.PHONY: demo test cluster cluster-down test-cluster conformance images bench bench-scale fmt lint

DEMO_BINARIES := weft weft-proxy weft-control weft-init weft-shop
CLUSTER_BINARIES := weft weft-proxy weft-control weft-init weft-cni weft-injector weft-shop
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# The mesh on this host: make demo ARGS="--duration 30 --json"
demo:
	@cargo build $(DEMO_BINARIES:%=--bin %)
	@$(TARGET_DIR)/debug/weft demo $(ARGS)

# Every test of the workspace. Those in network namespaces need root, and nginx, redis-server, mariadb-server, nghttp2, wrk, curl,
# openssl and iptables, which .ci/run installs, and go, whose programs tests/tools/build makes. Those on Kubernetes bring a cluster up, and
# need what tests/cluster/README.md names. One alone: make test ARGS="-p tests --test mesh websocket"
test:
	cargo build --workspace --all-targets
	cargo test $(or $(ARGS),--workspace)

# A real Kubernetes on this host, with our images, as root: make cluster NODES=2 (tests/cluster/README.md)
cluster:
	@cargo build $(CLUSTER_BINARIES:%=--bin %)
	@tests/cluster/up $(NODES)

cluster-down:
	@tests/cluster/down

# The end-to-end tests on a cluster of their own: make test-cluster ARGS="shop rollout"; with NAME=weft0 on that of make cluster
test-cluster:
	@cargo build $(CLUSTER_BINARIES:%=--bin %)
	cargo test -p tests --test cluster -- $(ARGS)

# The official conformance suite of the Gateway API, and our stricter tests of it, on a cluster of their own: tests/conformance/README.md
conformance:
	@cargo build $(CLUSTER_BINARIES:%=--bin %)
	cargo test -p tests --test conformance -- $(ARGS)

# The images that are shipped, static, in target/images
images:
	@tests/images/build

# Our pair beside HAProxy, nginx and Envoy, as root: make bench ARGS="weft haproxy" (bench/README.md)
bench:
	@cargo build --release --bin weft-proxy --bin weft-control --bin weft-load
	@bench/run $(ARGS)

# Control before 2,000 Services and 10,000 Pods that are only described (bench/README.md)
bench-scale:
	@bench/scale/run

fmt:
	cargo fmt --all

# What .ci/run holds against every change, besides the tests.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny --workspace check; \
	else echo "cargo-deny is not installed: deny.toml was not checked"; fi
