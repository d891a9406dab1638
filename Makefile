# What there is to do with this project. `make` alone lists it.

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
VENV := $(TARGET)/test-venv

# The tests' own Python comes first, so that `python3` in a pipeline is the one with the packages.
IN_VENV := PATH="$(VENV)/bin:$$PATH" PYTHONDONTWRITEBYTECODE=1

.PHONY: help build demo set-up test test-rust test-python check format lint docs licences bench score cases own clean

help: ## list what there is to do
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the release binary
	$(CARGO) build --release --locked

demo: build ## show the main job from start to end, in a scratch directory
	PV="$(TARGET)/release/pv" sh scripts/demo.sh

test: test-rust test-python ## run every test

check: format lint docs licences $(if $(TESTED),,test) ## all that must hold before a commit; TESTED=1 leaves the tests out

bench: set-up ## measure, and write docs/benchmarks.md; SKIP="million peers" leaves rows or other programs out
	$(IN_VENV) $(CARGO) bench --locked --bench numbers
	$(CARGO) bench --locked --bench store -- $(addprefix --skip ,$(SKIP))
	$(CARGO) bench --locked --bench page

score: set-up ## ask `pv verify --why` about steps whose causes are known; writes the table in docs/verify.md
	$(IN_VENV) PV_SCORE=write $(CARGO) nextest run --locked nondet::

cases: set-up ## show, without pv, that those steps have the causes that they are said to have; as root
	$(IN_VENV) python3 scripts/nondet-check.py $(CASES)

own: build ## run this project's own pipeline: build, test, measure, draw
	"$(TARGET)/release/pv" run

clean: ## remove what was built
	$(CARGO) clean

set-up:
	@sh scripts/setup-tests.sh "$(VENV)"

test-rust: set-up
	@export $(IN_VENV); \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		set -x; $(CARGO) nextest run --locked --no-fail-fast; \
	else \
		echo "cargo-nextest is not here: plain cargo test is used instead" >&2; \
		set -x; $(CARGO) test --locked --no-fail-fast --lib --bins --tests; \
	fi
	$(IN_VENV) $(CARGO) test --locked --doc

test-python: set-up
	$(IN_VENV) python3 -m unittest discover --start-directory tests
	$(CARGO) run --quiet --locked -- schema > "$(TARGET)/pipeline.schema.json"
	$(IN_VENV) python3 tests/schema_check.py "$(TARGET)/pipeline.schema.json"

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

# Advisories live in a database that has to be fetched; the rest of the policy is checked without a network.
licences: set-up
	@export $(IN_VENV); \
	if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "skipped: licences, bans, sources and advisories, because cargo-deny is not here" >&2; \
		exit 0; \
	fi; \
	$(CARGO) deny --locked check licenses bans sources || exit 1; \
	if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then \
		$(CARGO) deny --locked check advisories; \
	else \
		echo "skipped: advisories, because their database cannot be fetched (offline?)" >&2; \
	fi
