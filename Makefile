# `make` alone lists the targets. Everything that takes more than a line lives in build.py or tools/.
PY := .venv/bin/python
PATTERN ?=

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv quickstart test lint unit integration build-all validate-all engine engine-stop clean lock lock-host check update-facts schema bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## .venv with the locked tools; quick when it is up to date
	@sh tools/bootstrap.sh

quickstart: venv ## from a fresh machine to two validated images
	@$(PY) build.py quickstart

test: lint unit integration ## everything that must pass before a commit

lint: venv ## style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

unit: venv ## tests without an engine
	@$(PY) -m pytest tests/unit --numprocesses 2 --dist worksteal

integration: engine ## tests on the real engine
	@$(PY) -m pytest tests/integration

build-all: engine ## build every row, or some: make build-all PATTERN='*cu128'
	@$(PY) build.py sweep $(if $(PATTERN),'$(PATTERN)') --no-validate --allow-missing auto

validate-all: engine ## build what is missing and prove every row, or some by PATTERN; makes room on a small disk
	@$(PY) build.py sweep $(if $(PATTERN),'$(PATTERN)') --allow-missing auto

engine: venv ## use the container engine that runs, else set one up
	@$(PY) build.py engine start

engine-stop: venv ## stop the engine, if it was started from here
	@$(PY) build.py engine stop

clean: venv ## remove what was made here: our images, containers, results, caches
	@$(PY) build.py clean

lock: venv ## resolve the matrix anew into locks/
	@$(PY) build.py lock $(if $(PATTERN),'$(PATTERN)')

lock-host: venv ## resolve the toolkit's own dependencies anew into locks/host.txt
	@.venv/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.10 \
		--generate-hashes --no-header --quiet --output-file locks/host.txt

check: venv ## can every row of the matrix work?
	@$(PY) build.py check $(if $(PATTERN),'$(PATTERN)')

update-facts: venv ## read anew what the package index says about versions; look at the diff
	@$(PY) -m builder.compat.generate --write
	@$(PY) -m builder.compat.document --write

schema: venv ## write docs/matrix.schema.json for editors
	@$(PY) build.py schema

bench: engine ## how fast and small, against what one would write instead, or some: ONLY=start,size
	@$(PY) -m bench $(if $(ONLY),--only '$(ONLY)')
