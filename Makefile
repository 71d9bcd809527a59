# make demo   set up and run the demo          make check      lint, format and types
# make test   set up and run the tests         make proof      longer proofs (a second demo model)
# make shapes the tests again, every tensor's shape checked
# make train  train the shipped demo model     make notebooks  execute them, check their claims
# make bench  speed against peers           make bench-patch    sweeps against peers
#                                           make bench-harvest  harvesting, disk and reading
#                                           make bench-train    training dictionaries
# make jupyterlab  notebooks in a browser     make bench-circuits scores of edges, ACDC, circuits

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test shapes check proof train bench bench-patch bench-harvest bench-train bench-circuits notebooks jupyterlab clean setup

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(SETUP)

demo: $(SETUP)
	$(BIN)/interp demo --out out/demo

test: $(SETUP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

shapes: $(SETUP)
	$(BIN)/python -m pytest --jaxtyping-packages=interp,beartype.beartype -m "not slow and not bad_input"

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

bench-harvest: $(SETUP)
	$(BIN)/python bench/harvest.py --update-readme

bench-circuits: $(SETUP)
	$(BIN)/python bench/circuits.py --update-readme

bench-patch: $(SETUP)
	$(BIN)/python bench/patch.py --json bench/patch.json --update-readme
	$(BIN)/python bench/trace.py --update-readme
	$(BIN)/python bench/estimates.py --update-readme

# The peers pin old versions of what stands here, so they are installed without what they ask for.
PEERS := $(VENV)/.peers
$(PEERS): $(SETUP)
	$(BIN)/python -m pip install --quiet --no-deps dictionary-learning==0.1.0 eai-sparsify==1.3.3 \
	  natsort schedulefree simple-parsing docstring-parser
	touch $(PEERS)

bench-train: $(PEERS)
	$(BIN)/python bench/train.py --update-readme

notebooks: $(SETUP)
	$(BIN)/interp notebooks run

jupyterlab: $(SETUP)
	$(BIN)/python -m pytest -m "slow or not slow" tests/notebooks/test_in_jupyterlab.py

clean:
	rm -rf out .pytest_cache .mypy_cache .ruff_cache
