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

# Where install-service puts things. With DESTDIR they go below that folder, nothing of the machine is changed or started.
DESTDIR :=
PREFIX := /opt/gpuserver
SERVICE_EXTRAS := espeak
UNITS := $(DESTDIR)/etc/systemd/system
SERVICES := gpuserver-media.service gpuserver-management.service
INSTALLED := $(UNITS)/gpuserver-media.service $(UNITS)/gpuserver-management.service $(DESTDIR)/etc/sysusers.d/gpuserver.conf

.PHONY: help run test check bench soak fuzz openapi screenshots install install-tests chromium nginx coturn systemd clean
.PHONY: install-service uninstall-service service-package service-files

help:
	@echo "make run     install into .venv, create the demo avatar on first start, serve http://127.0.0.1:9000"
	@echo "make test    install what tests need and run them all"
	@echo "make check   lint, format and types"
	@echo "make bench   print the benchmark table"
	@echo "make soak    what takes too long for the tests: a hundred kill -9, two thousand damaged offers,"
	@echo "             five hundred sessions, five minutes in Chromium"
	@echo "make fuzz    at least 10,000 hostile calls of every address of both servers, and a table of what they answered"
	@echo "make openapi write docs/openapi-*.json anew"
	@echo "make screenshots  take the pictures of the page in docs/ anew"
	@echo "make install-service    as root: into /opt/gpuserver, with systemd units (docs/operations.md)"
	@echo "make uninstall-service  remove that again; settings and data stay"
	@echo "make clean   remove .venv and caches; data/ stays"

run: install
	@[ -n "$$($(BIN)/gpuserver avatars list)" ] || $(BIN)/gpuserver avatars create --demo
	@exec $(BIN)/python unified_server.py

# These listen to the clock, so they run one after the other.
CLOCKED := temp/tests/end_to_end temp/tests/media/test_network_faults.py temp/tests/media/test_lip_sync_reports.py

test: install-tests chromium nginx coturn systemd
	$(BIN)/python -m pytest -n auto --dist loadfile $(addprefix --ignore=,$(CLOCKED))
	$(BIN)/python -m pytest $(CLOCKED)

check: install-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install-tests
	$(BIN)/python bench/turn.py
	$(BIN)/python bench/media.py

screenshots: install-tests chromium
	UPDATE_SCREENSHOTS=1 $(BIN)/python -m pytest temp/tests/end_to_end/test_screenshots.py

soak: install-tests chromium
	$(BIN)/python -m soak.creation_kills
	$(BIN)/python -m soak.sdp_mutations
	$(BIN)/python -m soak.sessions
	$(BIN)/python -m soak.browser_freezes

fuzz: install-tests
	$(BIN)/python -m soak.api_fuzz

openapi: install
	$(BIN)/gpuserver openapi docs

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

systemd:
	@command -v systemd-analyze >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing systemd-analyze from Debian."; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends systemd >/dev/null; \
	else \
		echo "The tests check the systemd units. Install it first: sudo apt install systemd" >&2; exit 1; \
	fi

install-service: service-package service-files
	@if [ -n "$(DESTDIR)" ]; then exit 0; fi; \
	systemd-sysusers gpuserver.conf && systemctl daemon-reload && \
	echo "Installed. Settings: /etc/gpuserver/gpuserver.env. Start: systemctl enable --now $(SERVICES)"

service-package:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 to 3.13 with venv is needed: sudo apt install python3 python3-venv" >&2; exit 1; }
	umask 022 && "$(PYTHON)" -m venv $(DESTDIR)$(PREFIX)
	umask 022 && $(DESTDIR)$(PREFIX)/bin/python -m pip --disable-pip-version-check -qq install --upgrade '.[$(SERVICE_EXTRAS)]'

service-files:
	install -d $(UNITS) $(DESTDIR)/etc/sysusers.d $(DESTDIR)/etc/gpuserver $(DESTDIR)$(PREFIX)/share/doc/gpuserver
	@for unit in $(SERVICES); do \
		sed 's|/opt/gpuserver|$(PREFIX)|g' deploy/systemd/$$unit > $(UNITS)/$$unit && chmod 644 $(UNITS)/$$unit; \
	done
	install -m 644 deploy/systemd/sysusers.conf $(DESTDIR)/etc/sysusers.d/gpuserver.conf
	install -m 644 docs/operations.md deploy/systemd/musetalk.conf $(DESTDIR)$(PREFIX)/share/doc/gpuserver
	@[ -e $(DESTDIR)/etc/gpuserver/gpuserver.env ] || install -m 600 deploy/systemd/gpuserver.env $(DESTDIR)/etc/gpuserver/gpuserver.env

uninstall-service:
	@if [ -z "$(DESTDIR)" ]; then systemctl disable --now $(SERVICES); fi
	rm -f $(INSTALLED)
	@if [ -e $(DESTDIR)$(PREFIX)/pyvenv.cfg ] || [ -d $(DESTDIR)$(PREFIX)/share/doc/gpuserver ]; then rm -rf $(DESTDIR)$(PREFIX); fi
	@if [ -z "$(DESTDIR)" ]; then systemctl daemon-reload; fi
	@echo "Removed. These stay: $(DESTDIR)/etc/gpuserver, $(DESTDIR)/var/lib/gpuserver, the account gpuserver."

coturn:
	@command -v turnserver >/dev/null && command -v nft >/dev/null && command -v ip >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "Installing coturn, nftables and iproute2 from Debian."; \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends coturn nftables iproute2 >/dev/null; \
	else \
		echo "The tests relay through a real TURN server. Install it first: sudo apt install coturn nftables iproute2" >&2; exit 1; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
