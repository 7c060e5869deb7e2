# Every task of the project. `make demo` and `make test` need Rust, a C compiler and make. `make interop` and .ci/run
# install the other programs that they need.

CARGO ?= cargo
PREFIX ?= /usr/local
DESTDIR ?=
# Tests wait more than they compute, so at least four run at once.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 4); [ $$n -gt 4 ] && echo $$n || echo 4)
# The seconds for which `make fuzz` feeds each target.
FUZZ_SECONDS ?= 60
# The minutes for which each test of `make soak` disturbs the program.
SOAK ?= 5
# The number of scenarios that `make soak` simulates first.
SOAK_SEEDS ?= 100000

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BINARY := $(TARGET_DIR)/release/load_balancer
# Only Linux has a symbol file of this kind.
OBJCOPY := $(shell [ "$$(uname -s)" = Linux ] && command -v objcopy)
KQUEUE := $(TARGET_DIR)/kqueue
# Tests that do not depend on the poller: tests of pure code, and one that builds its own programs.
PURE := simulation fuzz_smoke tidy upgrade_layout

.DEFAULT_GOAL := help
.PHONY: help build demo test check check-kqueue bench bench-save compare fuzz fuzz-min interop soak install

help: ## list the targets (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# This build keeps the symbols, which a plain `cargo build --release` strips. load_balancer.debug is the program before
# objcopy strips it. It is the whole program, because perf assigns wrong names if a file has the symbols only. A panic
# aborts, so nothing looks up the frames of the stack: the index of the unwind tables would be 36 KB without use.
build: ## build the static release binary, and its symbols in load_balancer.debug
ifeq ($(OBJCOPY),)
	$(CARGO) build --release --locked
	@echo "build: objcopy (binutils) is missing, so there is no $(BINARY).debug"
else
	$(CARGO) rustc --release --locked --bin load_balancer -- -C strip=debuginfo -C link-arg=-Wl,--no-eh-frame-hdr
	cp $(BINARY) $(BINARY).debug
	$(OBJCOPY) --strip-all --add-gnu-debuglink=$(BINARY).debug $(BINARY) $(BINARY).stripped
	mv $(BINARY).stripped $(BINARY)
endif

demo: build ## run the balancer in front of two built-in echo backends
	$(BINARY) --demo

test: ## run every unit, behaviour and simulation test
	$(CARGO) test --locked

check: ## format, lints, documentation, release build; the binary static and small, no new dependency
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --all-targets --features kqueue -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	$(MAKE) build
	.ci/check-release $(BINARY)

check-kqueue: ## run the tests that depend on the poller over kqueue; on Linux, over a small kqueue made of epoll and inotify
	mkdir -p $(KQUEUE) && $(CC) -O1 -Wall -Wextra -Werror -c -o $(KQUEUE)/kqueue.o tests/kqueue/kqueue.c && $(AR) rcs $(KQUEUE)/libkqueue.a $(KQUEUE)/kqueue.o
	LIBRARY_PATH=$(abspath $(KQUEUE)) $(CARGO) test --locked --features kqueue -- $(addprefix --skip ,$(PURE))

bench: ## run the benches; fail if one is more than 15% above the saved baseline
	$(CARGO) bench --locked --no-fail-fast --bench '*'

bench-save: ## run the benches and save their results as the baseline
	BENCH_SAVE=1 $(CARGO) bench --locked --no-fail-fast --bench '*'

compare: build ## measure processor time beside HAProxy, nginx and a bare relay, in all scenarios or in SCENARIOS
	.ci/install python3 cc haproxy nginx wrk h2load openssl
	python3 benches/compare/compare.py $(BINARY) $(SCENARIOS)

# RUSTC_BOOTSTRAP lets a stable compiler accept the options of cargo-fuzz. AddressSanitizer watches the target that
# reaches `unsafe` code. It needs a dynamic C library, and gets one: cargo-fuzz sets RUSTFLAGS, which replace the static
# linking of .cargo/config.toml. Its build has a folder of its own, so that neither build replaces the other.
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

fuzz-min: ## minimise each corpus: keep the inputs that reach code which no other input reaches
	for target in $(or $(TARGETS),$$($(CARGO) fuzz list)); do \
	    rm -rf fuzz/target/kept && mkdir -p fuzz/target/kept && \
	    RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none --target-dir fuzz/target $$target \
	        fuzz/target/kept fuzz/corpus/$$target -- -set_cover_merge=1 -use_counters=0 && \
	    rm -rf fuzz/corpus/$$target && cp -r fuzz/target/kept fuzz/corpus/$$target || exit 1; \
	done

interop: build ## run the release binary against curl, nginx and wrk; install them if they are missing
	.ci/install python3 openssl curl nginx wrk strace h2load haproxy dnsmasq nghttpd hypercorn promtool grpcio websockets
	INTEROP_BINARY=$(BINARY) python3 tests/interop/run.py $(ONLY)

soak: ## simulate SOAK_SEEDS (100000) scenarios from a random seed; then upgrade, reload, kill and drain under load, SOAK (5) minutes each
	from=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "soak: SIM_FROM=$$from SIM_SEEDS=$(SOAK_SEEDS)"; \
	SIM_FROM=$$from SIM_SEEDS=$(SOAK_SEEDS) $(CARGO) test --locked --release --test main simulation::
	SOAK=$(SOAK) $(CARGO) test --locked --release --test main losses:: -- --nocapture --test-threads=1

install: $(BINARY) ## install into DESTDIR and PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/load_balancer

# Builds only if the binary is missing, so that `sudo make install` after `make build` needs no Rust.
$(BINARY):
	$(MAKE) build
