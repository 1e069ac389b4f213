# Everything a newcomer or a CI machine calls. Each recipe installs what it lacks where it may,
# and otherwise prints the one command that does.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

# Debian keeps `nft` and `ip` outside an ordinary user's path, and rustup outside a fresh shell's.
export PATH := $(PATH):/usr/sbin:/sbin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# One compiler for every 2 GiB that are free, so that a build fits a machine with 4 GiB.
export CARGO_BUILD_JOBS ?= $(shell .ci/prerequisites jobs)

# What every program that changes a firewall runs in: a network of its own. PRIVATE adds mounts and
# processes, so that nothing outlives its first process, not even after SIGKILL.
NETNS = unshare $(shell [ "$$(id -u)" = 0 ] || echo --user --map-root-user) --net
PRIVATE = $(NETNS) --mount --pid --fork --kill-child --mount-proc
# Asked in the recipe: make 4.3 does not pass the path above on to $(shell).
RUNNER = CARGO_TARGET_$$(rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)_RUNNER

PREFIX ?= /usr/local
# What `build` adds to the agent: `aws`, or nothing.
FEATURES ?=
comma = ,

# Those of the examples; the ones in .ci/ are all of that folder.
SCRIPTS = examples/noc/postern-feed examples/ufw/postern-ufw

# The daemons as they are delivered, each built for what it does, and how they are built.
DAEMONS = target/release/postern-controlplane target/agent/postern-agent
define build-daemons
	cargo build --locked --release --package postern-controlplane --bins
	cargo build --locked --profile agent --package postern-agent --bins $(1)
endef

# Runs all tests with these features.
define run-tests
	cargo test --locked --workspace $(1) --doc
	cargo nextest run --locked --workspace $(1)
	env "$(RUNNER)=$(NETNS)" cargo nextest run --locked --workspace $(1) --profile netns
endef

.PHONY: help demo test test-core check bench build install

help: ## Lists the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## Shows the main job on this machine's kernel, in network namespaces of its own
	@.ci/prerequisites build netns
	cargo build --locked --package postern-controlplane --package postern-agent --bins --example demo
	$(PRIVATE) target/debug/examples/demo target/debug

test: ## Runs all tests; those that change a firewall each in a network namespace of their own
	@.ci/prerequisites build netns test aws
	$(call run-tests,--all-features)

test-core: ## Runs all tests but those of AWS, whose SDK needs 12 GiB of memory to compile
	@.ci/prerequisites build netns test
	$(call run-tests,--features postern-agent/failpoints$(comma)postern-controlplane/failpoints)
	@echo 'All but the AWS targets were tested: `make test` tests those as well, with 12 GiB of memory.'

check: ## Runs formatter, lints, documentation, API document, dependency, script and unit checks
	@.ci/prerequisites build check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --all-features
	cargo fetch --locked --quiet # what other platforms need is judged as well, and was never built
	cargo deny --offline --all-features check --hide-inclusion-graph bans licenses sources
	.ci/units
	.ci/documents
	.ci/openapi
	@if command -v shellcheck >/dev/null; then shellcheck $(filter-out %.txt,$(wildcard .ci/*)) $(SCRIPTS); else echo 'shellcheck is not installed: scripts not checked'; fi

bench: ## Measures the figures that matter beside their floors; writes target/bench.json
	@.ci/prerequisites build netns test aws bench
	$(call build-daemons,--features aws)
	install -D -t target/bench $(DAEMONS)
	cargo bench --locked --package postern-agent --bench postern

build: ## Builds what `install` installs; FEATURES=aws adds the targets in AWS, for 8 GB of memory
	@.ci/prerequisites build $(FEATURES)
	$(call build-daemons,$(FEATURES:%=--features %))

install: ## Installs the release build and its units below $(DESTDIR)$(PREFIX); see README.md
	@for daemon in $(DAEMONS); do test -x $$daemon || { echo 'build first: make build' >&2; exit 1; }; done
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(DAEMONS)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/sysusers.d systemd/sysusers.d/*.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/tmpfiles.d systemd/tmpfiles.d/*.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system systemd/*.service
	sed -i 's|=/usr/bin/postern-|=$(PREFIX)/bin/postern-|' $(DESTDIR)$(PREFIX)/lib/systemd/system/postern-*.service
	@target/agent/postern-agent --version | grep -q aws || \
		echo 'This agent has no targets in AWS; `make build FEATURES=aws` makes one that has.'
