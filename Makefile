# A thin front for people: every target is one script or cargo call that works without make.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
KERNEL ?= 6.12
TEST ?=

# All integration tests but `vm`, which needs root and a kernel that can be broken.
PLAIN_TESTS = $(patsubst tests/%.rs,--test %,$(wildcard tests/*.rs)) \
	$(patsubst tests/%/main.rs,--test %,$(filter-out tests/vm/main.rs,$(wildcard tests/*/main.rs)))

.PHONY: help build demo test check test-unit test-root vm-test kernel-matrix bypasses kernels vmlinux bench setup-build \
	setup-check setup-vm install clean distclean

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

build: setup-build ## install what is missing and build the release program
	$(CARGO) build --locked --release

demo: setup-build ## show the main job on real input: a command inside a fence
	$(CARGO) build --locked --release
	scripts/demo.sh

test: setup-build setup-check setup-vm ## install what is missing and run every test: unit, command line, this kernel, the VMs
	@# The kernels of the VMs come while everything is built.
	@mkdir -p target; scripts/kernels.sh >target/kernels.log 2>&1 & fetching=$$!; \
	built=0; $(MAKE) --no-print-directory check test-unit || built=$$?; \
	wait $$fetching || cat target/kernels.log >&2; exit $$built
	@if [ "$$(id -u)" = 0 ]; then scripts/vm-test.sh host; \
	else echo 'not root: the tests on the running kernel are left out; the VMs run them' >&2; fi
	$(MAKE) --no-print-directory kernel-matrix

check: setup-build setup-check ## formats, lints, documentation, BPF for both architectures, the build itself; warnings are errors
	$(CARGO) fmt --check
	@# Before anything of the crate is built: it has to be built again.
	scripts/check-build.sh
	$(CARGO) clippy --locked --all-targets --features stream -- -D warnings
	$(CARGO) clippy --locked --test vm --features stream -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --features stream
	scripts/check-bpf.sh

test-unit: setup-build ## tests that need no privileges, on this machine
	$(CARGO) test --locked --features stream --lib --bins --examples $(PLAIN_TESTS)
	$(CARGO) test --locked --features stream --doc

test-root: setup-build ## the privileged tests on the running kernel, as root: TEST=name picks some
	scripts/vm-test.sh host $(TEST)

vm-test: setup-build setup-vm ## the privileged tests in one VM: KERNEL=6.12 (a row of tests/vm/kernels.toml) TEST=name
	scripts/vm-test.sh $(KERNEL) $(TEST)

kernel-matrix: setup-build setup-vm ## the privileged tests in every VM of tests/vm/kernels.toml, one after the other
	scripts/kernels.sh
	scripts/vm-test.sh all $(TEST)

bypasses: setup-build setup-vm ## run the tests in every VM and write docs/BYPASSES.md anew from what they have shown
	scripts/kernels.sh
	STOCKADE_BLESS=1 scripts/vm-test.sh all

kernels: setup-vm ## fetch the kernels of the VM tests; nothing is downloaded twice
	scripts/kernels.sh

vmlinux: setup-vm ## regenerate the kernel type headers in vmlinux/ (needs bpftool)
	scripts/vmlinux.sh

bench: setup-build ## measure, and write the figures to a file (as root, on a quiet machine)
	$(CARGO) bench --locked --bench bench

setup-build:
	@scripts/setup.sh build

setup-check:
	@scripts/setup.sh check

setup-vm:
	@scripts/setup.sh vm

install: setup-build ## install the program with cargo
	$(CARGO) install --locked --path .

clean: ## remove what was built; kernels and tools for the VMs stay
	rm -rf target/debug target/release target/doc target/package target/check-bpf target/vm/log target/vm/run

distclean: ## remove everything that can be made or fetched again
	$(CARGO) clean
