# make search   sets everything up, then runs the quickstart search
# make test     sets everything up, then lints and runs every test
# Both work offline once the packages are installed; a second call installs nothing.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: search test lint format bench references ui schemas constraints clean help
.DEFAULT_GOAL := help

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

search: $(READY) ## find a Pareto front: runs/quickstart.yaml
	@$(BIN)/cosearch run runs/quickstart.yaml

test: lint ## lint, then run every test
	@$(BIN)/python -m pytest

lint: $(READY) ## ruff (lint and format), mypy --strict, the layering test
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python -m pytest -q tests/unit/test_layering.py

format: $(READY) ## let ruff put the code in order
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: $(READY) ## measure again, and write the tables under bench/
	@for script in bench/*/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

references: $(READY) ## bring SCALE-Sim, ZigZag and AccelForge into environments of their own, so that their tests run
	@for tool in scalesim zigzag accelforge; do $(BIN)/cosearch reference install $$tool || exit 1; done

ui: $(READY) ## open MLflow's pages on this project's searches
	@$(BIN)/cosearch ui

schemas: $(READY) ## write the JSON schemas that editors complete from
	@$(BIN)/cosearch schema space > spaces/space-1.schema.json && $(BIN)/cosearch schema run > runs/run-1.schema.json

constraints: $(READY) ## pin what is installed now
	@(sed -n '/^#/p' constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > constraints.new && mv constraints.new constraints.txt

clean: ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build

# The pinned torch goes first: asked for by name and version, it comes as the CPU build where there is one.
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): the first time takes a few minutes, later calls skip it."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "$$(grep -E '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@
