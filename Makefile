# rk-gemma. `make demo` and `make test` do all the set-up they need; `make help` lists the rest; CONTRIBUTING.md says more.
# Paths are relative throughout: make cannot have a space in the name of a target.

SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from; empty: pip's own index. Its CPU build: https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
ARCH := $(shell uname -m)
JOBS := -j$(shell nproc)
SIMULATOR := build/simulator/$(ARCH)/1.3.0/librkllmrt.so
BUILD_SIMULATOR = $(MAKE) -s $(JOBS) -C board/simulator OUT=../../build/simulator PYTHON=$(PYTHON)

# What the host needs from Debian or Ubuntu, beyond git, make and Python.
PACKAGES_DEMO := g++ python3-venv
PACKAGES_TEST := $(PACKAGES_DEMO) g++-aarch64-linux-gnu qemu-user-static proot

.PHONY: demo help test test-long check format bench fuzz ready-to-test simulator simulator-arm64 emulation \
  emulation-if-possible packages-demo packages-test clean

demo: $(VENV)/.demo simulator  ## set up, export the demo model, ask it twice
	demo/demo.sh $(BIN)/rk-gemma $(SIMULATOR)

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-24s%s\n", $$1, $$2}'
	@echo
	@echo "PYTHON=$(PYTHON)  VENV=$(VENV)  TORCH_INDEX=$(TORCH_INDEX)  can be given; CONTRIBUTING.md explains them"

# Packages, simulators, sysroot and torch side by side: none of them needs another. (JOBS= hands our own jobs down.)
test:  ## everything this machine can run; RK_GEMMA_LONG=1 adds the long part
	@$(MAKE) --no-print-directory $(JOBS) JOBS= ready-to-test
	scripts/run-tests $(BIN)/python

test-long:  ## the same with the long part: before a release
	@RK_GEMMA_LONG=1 $(MAKE) --no-print-directory test

check: $(VENV)/.check simulator  ## format, lint, types, fast tests; needs no torch
	scripts/run-checks $(BIN)/python

format: $(VENV)/.check  ## bring the source into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.check simulator  ## what it costs, beside named peers
	$(BIN)/python -m bench

fuzz: $(VENV)/.check  ## coverage-guided fuzzing; SECONDS=n for each target
	$(PIP) -e '.[fuzz]'
	$(BIN)/python -m fuzz $(SECONDS)

ready-to-test: $(VENV)/.test simulator-arm64 emulation-if-possible

simulator: packages-demo  ## the simulated librkllmrt.so for this machine
	+$(BUILD_SIMULATOR) ARCH=$(ARCH)

# Not beside `simulator`: both write the generated headers.
simulator-arm64: packages-test simulator  ## the same for aarch64
	+$(BUILD_SIMULATOR) ARCH=aarch64

emulation: packages-test  ## an arm64 Debian tree in the cache, for qemu
	$(PYTHON) board/emulation/sysroot.py build

# Where the sysroot cannot be built the aarch64 tests skip, and the run says so at both ends.
emulation-if-possible: packages-test
	@$(PYTHON) board/emulation/sysroot.py build \
	  || echo "*** NOT TESTED: aarch64. No arm64 sysroot; see above, then: make emulation ***" >&2

packages-demo:
	@scripts/need-packages $(PACKAGES_DEMO)

# After the others: two installations at a time would lock each other out.
packages-test: packages-demo
	@scripts/need-packages $(PACKAGES_TEST)

$(VENV)/bin/python: | packages-demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP) -e '.[export]'
	touch $@

$(VENV)/.check: $(VENV)/.demo
	$(PIP) -e '.[dev]'
	touch $@

# torch first and exactly: a range would let pip take another build.
$(VENV)/.test: $(VENV)/.check
	scripts/get-torch $(BIN)/python $(TORCH_INDEX)
	$(PIP) -e '.[dev,eval]'
	touch $@

clean:  ## remove what was built (not the virtual environment)
	rm -rf build
