# What one does with this tree, one target each. `make demo` needs cargo and a Linux kernel, nothing else.
.PHONY: demo

DEMO_BINARIES := weft weft-proxy weft-control weft-init weft-shop
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

# The mesh on this host: make demo ARGS="--duration 30 --json"
demo:
	@cargo build $(DEMO_BINARIES:%=--bin %)
	@$(TARGET_DIR)/debug/weft demo $(ARGS)
