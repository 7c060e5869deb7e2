# Every task of the project. `make demo` and `make test` need Rust, a C compiler and make;
# nothing else. `make interop` and .ci/run install what they need besides.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Tests wait more than they compute, so two processors run four of them.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 4); [ $$n -gt 4 ] && echo $$n || echo 4)
# How long `make fuzz` feeds each target.
FUZZ_SECONDS ?= 60
# How long each test of `make soak` disturbs, in minutes.
SOAK ?= 5
# How many scenarios of the simulation `make soak` plays first.
SOAK_SEEDS ?= 100000

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET_DIR)/release/load_balancer
KQUEUE := $(TARGET_DIR)/kqueue
# Tests of pure code, and one that builds programs of its own: the poller makes no difference to them.
PURE := simulation fuzz_smoke tidy upgrade_layout

.DEFAULT_GOAL := help
.PHONY: help build demo test check check-kqueue bench bench-save compare fuzz fuzz-min interop soak install

help: ## say what can be made (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

build: ## build the static release binary
	$(CARGO) build --release --locked

demo: build ## run the balancer before two built-in echo backends
	$(BINARY) --demo

test: ## run every unit, behaviour and simulation test
	$(CARGO) test --locked

check: ## format, lints, documentation, release build; the binary static and small, no new dependency
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --features kqueue -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	$(CARGO) build --release --locked
	.ci/check-release $(BINARY)

check-kqueue: ## run the tests that a poller matters to over kqueue: on Linux, over a small one made of epoll and inotify
	mkdir -p $(KQUEUE) && $(CC) -O1 -Wall -Wextra -Werror -c -o $(KQUEUE)/kqueue.o tests/kqueue/kqueue.c && $(AR) rcs $(KQUEUE)/libkqueue.a $(KQUEUE)/kqueue.o
	LIBRARY_PATH=$(abspath $(KQUEUE)) $(CARGO) test --locked --features kqueue -- $(addprefix --skip ,$(PURE))

bench: ## run the benches and fail where one is past 15% of the kept baseline
	$(CARGO) bench --locked --no-fail-fast --bench '*'

bench-save: ## run the benches and keep what they show as the baseline
	BENCH_SAVE=1 $(CARGO) bench --locked --no-fail-fast --bench '*'

compare: build ## measure processor time beside HAProxy, nginx and a bare relay, all SCENARIOS or some
	.ci/install python3 cc haproxy nginx wrk openssl
	python3 benches/compare/compare.py $(BINARY) $(SCENARIOS)

# RUSTC_BOOTSTRAP has a stable compiler do what cargo-fuzz asks of it. AddressSanitizer watches the target that
# reaches `unsafe` code. It needs a dynamic C library, and has it: cargo-fuzz sets RUSTFLAGS, which replace those of
# .cargo/config.toml that link statically. What is built for it lies apart, so that neither build replaces the other.
fuzz: ## feed each fuzz target, or TARGETS, for FUZZ_SECONDS (60) and extend its corpus; without cargo-fuzz, run smoke tests
	@if $(CARGO) fuzz --version >/dev/null 2>&1; then \
	    for target in $(or $(TARGETS),$$($(CARGO) fuzz list)); do \
	        sanitizer=none; folder=fuzz/target; \
	        if [ $$target = scan ]; then sanitizer=address; folder=fuzz/target/address; fi; \
	        dictionary=; if [ -f fuzz/dictionaries/$$target.dict ]; then dictionary=-dict=fuzz/dictionaries/$$target.dict; fi; \
	        echo "fuzz: $$target for $(FUZZ_SECONDS) s, sanitizer $$sanitizer"; \
	        RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer $$sanitizer --target-dir $$folder $$target fuzz/corpus/$$target -- \
	            -max_total_time=$(FUZZ_SECONDS) -max_len=4096 $$dictionary || exit 1; \
	    done; \
	else \
	    echo "fuzz: no cargo-fuzz here (cargo install cargo-fuzz); running the targets as smoke tests"; \
	    $(CARGO) test --locked --test main fuzz; \
	fi

fuzz-min: ## keep of each corpus only what reaches code that nothing else does
	for target in $(or $(TARGETS),$$($(CARGO) fuzz list)); do \
	    rm -rf fuzz/target/kept && mkdir -p fuzz/target/kept && \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none --target-dir fuzz/target $$target \
	        fuzz/target/kept fuzz/corpus/$$target -- -set_cover_merge=1 -use_counters=0 && \
	    rm -rf fuzz/corpus/$$target && cp -r fuzz/target/kept fuzz/corpus/$$target || exit 1; \
	done

interop: build ## run the release binary against curl, nginx and wrk (installed where missing)
	.ci/install python3 openssl curl nginx wrk strace h2load dnsmasq nghttpd hypercorn promtool
	INTEROP_BINARY=$(BINARY) python3 tests/interop/run.py $(ONLY)

soak: ## simulate SOAK_SEEDS (100000) scenarios from a random seed on; then upgrade, reload, kill and drain under load, SOAK (5) minutes each
	from=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "soak: SIM_FROM=$$from SIM_SEEDS=$(SOAK_SEEDS)"; \
	SIM_FROM=$$from SIM_SEEDS=$(SOAK_SEEDS) $(CARGO) test --locked --release --test main simulation::
	SOAK=$(SOAK) $(CARGO) test --locked --release --test main losses:: -- --nocapture --test-threads=1

install: $(BINARY) ## install into DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/load_balancer

# Only where it is missing, so that `sudo make install` after `make build` needs no Rust.
$(BINARY):
	$(CARGO) build --release --locked
