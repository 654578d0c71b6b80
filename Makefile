# Two commands are all the set-up there is: `make run` and `make test`. Both install what is
# missing on a Debian machine first.

# Servers that tests start are there, and not on everybody's path.
export PATH := $(PATH):/usr/sbin

.PHONY: run test crowd bench fuzz check-style build-tools test-tools bench-tools clean

# The whole shop on this machine: http://127.0.0.1:8080
run: build-tools
	cargo run --release --locked -- run

# Everything that is promised, tested here: rules, engine, edge, order servers, pages in a browser.
test: test-tools check-style
	cargo test --workspace --locked

# A crowd against a fresh shop, then its audit with the crowd's history. CROWD holds arguments of
# `perf crowd`, STOCK the units: make crowd CROWD="--buyers 50000 --within 20s" STOCK=2000
CROWD ?=
crowd: build-tools
	cargo build --release --locked -p floodgate -p floodgate-perf
	perf/crowd.sh $(CROWD)

# The edge and a sale beside nginx, nginx with Lua, haproxy and varnish: BENCH holds arguments of `perf bench`.
BENCH ?= --out perf/runs/bench
bench: build-tools bench-tools
	cargo build --release --locked -p floodgate -p floodgate-perf
	target/release/perf bench $(BENCH)

# Bytes that nobody wrote, sent down both ways of the edge for FUZZ_SECONDS: they must be answered alike. Stable Rust
# does; what is found to be new is kept in fuzz/corpus, what fails in fuzz/artifacts.
FUZZ_SECONDS ?= 60
fuzz: build-tools
	cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	mkdir -p fuzz/corpus/both_ways
	cargo fuzz run --dev --sanitizer none both_ways fuzz/corpus/both_ways fuzz/seeds -- \
		-max_total_time=$(FUZZ_SECONDS) -timeout=30 -max_len=4096 -rss_limit_mb=4096 -dict=fuzz/words.dict

check-style: build-tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

build-tools:
	@deploy/install-tools.sh build

test-tools:
	@deploy/install-tools.sh test

bench-tools:
	@deploy/install-tools.sh bench

clean:
	cargo clean
