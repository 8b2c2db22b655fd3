# Everything a developer does with Dotfour. `make` alone lists the targets.

.DEFAULT_GOAL := help
.PHONY: help build demo test bench race race-quick soak image dist deps deps-demo deps-test deps-race deps-dist

CARGO ?= cargo
BUILD := $(abspath $(or $(CARGO_TARGET_DIR),target))
RIG := $(BUILD)/release/dotfour-rig
# The platform of `make dist`, in Rust's words; this machine's unless said otherwise.
TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
# Where `make dist` takes nft and its libraries from: for another platform, what `scripts/dist-root` has made.
ROOT ?= /

# Test programs run one by one in the rig's sandbox: namespaces of their own, as root of them, whoever calls `make`.
IN_SANDBOX := --config "target.'cfg(unix)'.runner = ['$(RIG)', 'sandbox', '--']"
# A container runtime needs the real root. Only the finished test programs get it, not cargo; where there is no way to
# get it, they say so and fail.
ifneq ($(and $(filter-out 0,$(shell id -u)),$(shell command -v sudo)),)
AS_ROOT := --config "target.'cfg(unix)'.runner = 'sudo'"
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The programs by name, so that what only tests need is not built. The plugin on its own: cargo unites the features of
# all that it builds at once, and the others' `std` would end up in the program that has none.
build: ## build the four programs into target/release
	$(CARGO) build --release --locked -p dotfour-ipamd -p dotfour-ctl -p dotfour-rig
	$(CARGO) build --release --locked -p dotfour
	@cp -f $(BUILD)/release/dotfour $(BUILD)/release/dotfour-ipam

demo: deps-demo build ## show pods on two nodes of a virtual VNet; all of it is gone afterwards
	@$(RIG) demo

test: deps-test build ## run all tests, those with a real container runtime too
	$(CARGO) test --locked $(IN_SANDBOX) --workspace --exclude dotfour --exclude dotfour-e2e
	$(CARGO) test --locked -p dotfour
	$(CARGO) test --locked -p dotfour-e2e --lib --test containerd --test podman --test views --test churn --test interrupted \
		--test scale --test counts --test datapath --test chain --test verbs --test sources --test daemonset --test delegated $(AS_ROOT)

bench: ## measure the hot path with criterion
	$(CARGO) bench --locked -p dotfour-benches

race: deps-race build ## time whole plugins in turn, and write the report into docs/
	$(CARGO) build --release --locked -p dotfour-benches --bin race
	@$(BUILD)/release/race --out docs

race-quick: deps-race build ## the race in short: shows that it works, and no figures to keep
	$(CARGO) build --release --locked -p dotfour-benches --bin race
	@$(BUILD)/release/race --quick

soak: deps-test build ## run the long versions: a thousand kills, each fuzz entry for a minute
	$(CARGO) test --locked -p dotfour-e2e --test churn --test scale --test sources $(AS_ROOT) -- --ignored
	$(CARGO) test --locked $(IN_SANDBOX) -p dotfour-ipamd --test install -- --ignored
	DOTFOUR_FUZZ_SECONDS=60 $(CARGO) test --release --locked -p dotfour-fuzz-entries -- --nocapture

image: deps-dist build ## make the OCI image of the programs of `make build`, without a container daemon
	@scripts/dist-image --programs $(BUILD)/release --out $(BUILD)/dotfour.oci.tar --list

dist: deps-dist ## make the files of a release in target/dist (TARGET=aarch64-unknown-linux-gnu ROOT=DIR for others)
	CARGO=$(CARGO) scripts/dist $(TARGET) $(BUILD) $(BUILD)/dist $(ROOT)

deps: ## install the Debian packages that are missing for demo, test, race, image and dist
	@scripts/install-deps

deps-demo:
	@scripts/install-deps demo

deps-race:
	@scripts/install-deps race

deps-test:
	@scripts/install-deps test

deps-dist:
	@scripts/install-deps dist
