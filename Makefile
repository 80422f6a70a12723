# Two commands do all set-up: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MARKERS ?= not slow and not long and not gpu and not browser

.PHONY: setup run test check format bench gpu clean

setup: $(VENV)/.installed

# The constraints file pins the versions the tests ran with; pyproject.toml says what is needed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "clipgan needs Python 3.11 to 3.13; run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup  ## emoji images -> features -> training -> evaluation -> registered model
	$(BIN)/clipgan run

test: setup  ## CPU, offline
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(MARKERS)" --numprocesses logical --dist loadfile

check: setup  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## speeds of training, features and sampling on this machine
	$(BIN)/python -m bench

MINUTES ?= 8
OUT     ?= gpu-results

gpu: setup  ## needs a CUDA device: checks, speeds and a base generator; docs/gpu.md
	$(BIN)/dvc repro features
	$(BIN)/python -m bench.gpu prepare --out $(OUT)/data
	$(BIN)/python -m bench.gpu run --minutes $(MINUTES) --out $(OUT) --data $(OUT)/data

clean:  ## removes the environment only, never data
	rm -rf $(VENV)
