# rk-gemma. `make demo` and `make test` do all the set-up they need; CONTRIBUTING.md says more.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check
ARCH := $(shell uname -m)
SIMULATOR := build/simulator/$(ARCH)/1.3.0/librkllmrt.so

# What the host needs from Debian or Ubuntu, beyond git, make and Python.
PACKAGES_DEMO := g++ python3-venv
PACKAGES_TEST := $(PACKAGES_DEMO) g++-aarch64-linux-gnu qemu-user-static proot

.PHONY: demo test check format bench fuzz simulator simulator-arm64 emulation emulation-if-possible packages-demo packages-test clean

demo: $(VENV)/.demo simulator
	demo/demo.sh $(BIN)/rk-gemma $(SIMULATOR)

test: $(VENV)/.test packages-test simulator simulator-arm64 emulation-if-possible
	scripts/run-tests $(BIN)/python

check: $(VENV)/.test simulator
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test simulator
	$(BIN)/python -m bench

fuzz: $(VENV)/.test
	$(PIP) -e '.[fuzz]'
	$(BIN)/python -m fuzz $(SECONDS)

simulator: packages-demo
	$(MAKE) -s -C board/simulator ARCH=$(ARCH) OUT=$(CURDIR)/build/simulator PYTHON=$(PYTHON)

simulator-arm64: packages-test
	$(MAKE) -s -C board/simulator ARCH=aarch64 OUT=$(CURDIR)/build/simulator PYTHON=$(PYTHON)

emulation: packages-test
	$(PYTHON) board/emulation/sysroot.py build

# Where the sysroot cannot be built the aarch64 tests skip, and the run says so at both ends.
emulation-if-possible: packages-test
	@$(PYTHON) board/emulation/sysroot.py build \
	  || echo "*** NOT TESTED: aarch64. No arm64 sysroot; see above, then: make emulation ***" >&2

packages-demo:
	@scripts/need-packages $(PACKAGES_DEMO)

packages-test:
	@scripts/need-packages $(PACKAGES_TEST)

$(VENV)/bin/python: | packages-demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(PIP) -e '.[export]'
	touch $@

# torch first and exactly: a range would let pip take a CUDA build.
$(VENV)/.test: $(VENV)/.demo
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev,eval]'
	touch $@

clean:
	rm -rf build
