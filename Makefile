# make demo   set up and run the demo          make check      lint, format and types
# make test   set up and run the tests         make proof      longer proofs (a second demo model)
# make train  train the shipped demo model     make notebooks, make bench

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check proof train bench notebooks clean setup

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(SETUP)

demo: $(SETUP)
	$(BIN)/interp demo --out out/demo

test: $(SETUP)
	$(BIN)/python -m pytest

check: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

proof: $(SETUP)
	$(BIN)/python -m pytest -m slow

train: $(SETUP)
	$(BIN)/interp train-demo --seed 0 --out out/demo-model

bench: $(SETUP)
	$(BIN)/python bench/overhead.py

notebooks: $(SETUP)
	$(BIN)/python -m jupyter lab notebooks

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache
