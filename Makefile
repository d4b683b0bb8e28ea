# Every target sets up .venv by itself when it is missing, or older than what it is made from.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name))))
MINUTES ?= 8
BIN := .venv/bin
SOURCES := src tests benchmarks examples
# Not those that compare runs, which they must be given, or train for a quarter of an hour and longer; nor what they share.
LONG := $(addprefix benchmarks/,background_flicker.py clock.py ddpm_steps.py future_video.py pixel_diffusion.py pose_futures.py \
	transfer_performers.py)
BENCHMARKS := $(filter-out $(LONG),$(wildcard benchmarks/*.py))

.PHONY: demo test test-browser test-all lint type docs bench bench-gpu clean help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.package ## make data, train for MINUTES=8, generate, open the gallery
	$(BIN)/kinema demo --minutes $(MINUTES) --overwrite

test: .venv/.dev ## the default tests, side by side on up to 4 cores: no GPU, no browser, nothing slow
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-browser: .venv/.dev ## the pages, in a headless Chromium that is on the PATH
	$(BIN)/pytest -m browser

test-all: .venv/.dev ## every test that this machine can run
	$(BIN)/pytest -m ""

lint: .venv/.dev ## style, and that imports run one way
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports

type: .venv/.dev ## types
	$(BIN)/basedpyright

docs: .venv/.dev ## build site/; a broken link fails
	$(BIN)/zensical build --clean --strict

bench: .venv/.dev ## measure; one JSON line each
	for script in $(BENCHMARKS); do $(BIN)/python $$script || exit 1; done

bench-gpu: .venv/.dev ## on a GPU: its tests, and what is measured there
	$(BIN)/pytest -m gpu
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/dit_step.py --preset small-gpu --batch 64
	$(BIN)/python benchmarks/dance_step.py --preset small-gpu --size 512
	$(BIN)/python benchmarks/transfer_speed.py --preset small-gpu --size 512
	$(BIN)/python benchmarks/loader.py

clean: ## remove what the other targets make, but .venv and the demo
	rm -rf site .cache build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# pip keeps what is right already, so a stale environment is brought up to date in place.
.venv/.package: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch .venv/.package $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "kinema needs Python 3.11 or 3.12; put it on the PATH or say PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
