# make run: everything from nothing to http://127.0.0.1:9000.  make test: all tests.  Both work on a plain Debian with Python 3.11 to 3.13.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The newest suitable interpreter that really runs and can make environments; override with: make run PYTHON=/path/to/python
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

.PHONY: help run test check bench soak screenshots install install-tests chromium nginx clean

help:
	@echo "make run     install into .venv, create the demo avatar on first start, serve http://127.0.0.1:9000"
	@echo "make test    install what tests need and run them all"
	@echo "make check   lint, format and types"
	@echo "make bench   print the benchmark table"
	@echo "make soak    what takes too long for the tests: kill -9 at a hundred random moments"
	@echo "make screenshots  take the pictures of the page in docs/ anew"
	@echo "make clean   remove .venv and caches; data/ stays"

run: install
	@[ -n "$$($(BIN)/gpuserver avatars list)" ] || $(BIN)/gpuserver avatars create --demo
	@exec $(BIN)/python unified_server.py

test: install-tests chromium nginx
	$(BIN)/python -m pytest

check: install-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install-tests
	$(BIN)/python bench/turn.py

screenshots: install-tests chromium
	UPDATE_SCREENSHOTS=1 $(BIN)/python -m pytest temp/tests/end_to_end/test_screenshots.py

soak: install-tests
	$(BIN)/python -m soak.creation_kills

install: $(VENV)/installed
install-tests: $(VENV)/installed-tests

$(BIN)/python:
	@python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
		if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
			echo "Installing python3-venv from Debian."; \
			apt-get -qq update && apt-get -qq install -y --no-install-recommends python3 python3-venv >/dev/null && \
			exec $(MAKE) --no-print-directory $@; \
		fi; \
		echo "Python 3.11 to 3.13 with venv is needed. On Debian or Ubuntu: sudo apt install python3 python3-venv" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)."; \
	"$$python" -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "Installing the packages; this takes a minute the first time."
	@$(PIP) install -e '.[espeak]'
	@touch $@

$(VENV)/installed-tests: pyproject.toml | $(BIN)/python
	@echo "Installing the packages for tests; this takes a minute the first time."
	@$(PIP) install -e '.[espeak,test,dev]'
	@touch $@ $(VENV)/installed

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing Chromium from Debian."; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; \
	else \
		echo "The tests drive a real browser. Install it first: sudo apt install chromium" >&2; exit 1; \
	fi

nginx:
	@command -v nginx /usr/sbin/nginx >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing nginx from Debian."; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends nginx-light >/dev/null; \
	else \
		echo "The tests put two gateways behind nginx. Install it first: sudo apt install nginx-light" >&2; exit 1; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
