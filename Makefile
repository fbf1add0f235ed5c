# Needs python3.11, make and git; everything else is installed into .venv.
# `make help` lists the targets.

PYTHON ?= python3.11
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
# ENV=tiles works on the Kedro environment conf/tiles, and hence on its data set.
ENV    :=

.DEFAULT_GOAL := help
include project.mk
.DELETE_ON_ERROR:
.PHONY: help venv data demo test test-slow check docs format airflow bench parameters lock clean

help:  ## show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile project.mk | expand -t 18

venv: $(STAMP)  ## make the virtual environment .venv from requirements.lock

# The build tools come from the lock too, hence no build isolation.
$(STAMP): requirements.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "$(PYTHON) is not on the path: install Python 3.11, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): about 2 GB, a few minutes"
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@$(PY) -m pip install -qq -r requirements.lock
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# No other package is touched.
$(VENV)/.app $(VENV)/.viz: $(VENV)/.%: requirements-%.lock $(STAMP)
	@$(PY) -m pip install -qq --no-deps -r $<
	@touch $@

app viz: %: $(VENV)/.%

data: $(STAMP)  ## put the demo's images into data/01_raw; record them, or your own (ENV=name), in DVC
	$(if $(ENV),,$(PY) -m decodiff_pipeline.data.acquire $(DATASET))
	$(VENV)/bin/dvc add --quiet data/01_raw/$(DATASET)

demo: data  ## run the whole chain on real images, or on your own (ENV=name), and record it in DVC
	$(VENV)/bin/kedro run $(ENVIRONMENT)
	$(PY) -m decodiff_pipeline.record $(ENVIRONMENT)
	$(VENV)/bin/dvc status $(STAGES) && $(VENV)/bin/dvc status --quiet $(STAGES)
	@$(MAKE) --no-print-directory summary ENV=$(ENV)
	@changed=$$(git ls-files --modified --others --exclude-standard -- data $(STAGES:yaml=*)) && \
		{ test -z "$$changed" || echo "to record it       git add" $$changed "&& git commit"; }

# A file stays with one process, since its tests share what is costly to make.
test test-slow: export OMP_NUM_THREADS ?= 1
test test-slow: PYTEST := $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(STAMP)  ## run the tests but for the slow ones
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)  ## run the slow tests: whole runs, servers, retraining, real data
	$(PYTEST) -m slow

check: $(STAMP)  ## ruff, mypy, import contracts, dvc.yaml, reference of parameters, workflows
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m decodiff_pipeline.dvc_stages --check
	$(PY) docs/parameters.py --check
	$(PY) docs/notebook.py --check
	$(VENV)/bin/zizmor --offline --quiet .github

docs: $(STAMP)  ## build the documentation's site into build/site; a warning is an error
	$(PY) -m sphinx --quiet --fail-on-warning --keep-going docs build/site

format: $(STAMP)  ## let ruff fix and format the code
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

airflow: $(STAMP)  ## write Airflow's DAG of the retraining into build/airflow (ENV=name)
	$(VENV)/bin/kedro airflow create --pipelines retrain $(ENVIRONMENT) \
		--jinja-file deploy/airflow_dag.j2 --target-dir build/airflow --params "project=$(CURDIR)"

bench: $(STAMP)  ## run the benchmarks into benchmarks/results.json
	$(PY) -m benchmarks

parameters: $(STAMP)  ## write docs/parameters.md from the models of the parameters and the catalog
	$(PY) docs/parameters.py

# Only PyTorch's CPU build keeps CUDA's packages out of the lock. It comes from pip's local folder
# of wheels where one is set, else from PyTorch's own index. The pin itself stays without "+cpu",
# so that it installs anywhere; uv has to see the suffix, or it prefers the CUDA build of that pin.
lock:  ## resolve requirements.lock anew (needs uv); LOCK_ARGS="--upgrade" for newer versions
	@command -v uv >/dev/null || { echo "uv is not on the path: pip install uv" >&2; exit 1; }
	sed -i -E 's/^(torch==[0-9.]+)$$/\1+cpu/' requirements.lock
	uv pip compile --quiet --no-header --python-version 3.11 \
		$(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu) \
		--extra demo --extra airflow --extra autoencoder --extra onnx --extra team --extra docs --extra dev $(LOCK_ARGS) \
		pyproject.toml --output-file requirements.lock
	sed -i -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' requirements.lock
	@! grep -nE '^(nvidia|cuda|triton)' requirements.lock

clean:  ## remove the virtual environment and caches; data, runs and models stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
