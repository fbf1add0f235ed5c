# What the repository's Makefile and that of a project of `decodiff-pipeline init` have in common.
# Wants VENV, PY, STAMP (what has to be there first, or nothing) and ENV.

DATASET := $(shell cat conf/base/globals.yml $(ENV:%=conf/%/globals.yml) 2>/dev/null | \
	sed -nE "s/^dataset: *['\"]?([^'\" \#]+).*/\1/p" | tail -n 1)
ENVIRONMENT := $(ENV:%=--env %)
MODEL := decodiff-$(DATASET)
STAGES := $(ENV:%=conf/%/)dvc.yaml
REPORT := data/08_reporting/$(DATASET)

# Stages that DVC runs look for `kedro` on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Nothing that is started here reports home, and a dead tracking server is noticed in seconds.
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export GRADIO_ANALYTICS_ENABLED := False
export MLFLOW_HTTP_REQUEST_MAX_RETRIES ?= 2
export MLFLOW_HTTP_REQUEST_TIMEOUT ?= 5

.PHONY: summary report ui serve app viz dvc-yaml

summary: $(STAMP)  ## show the last results and where everything is
	@$(PY) -m decodiff_pipeline.reporting.summary $(REPORT)/metrics.json
	@$(PY) -c 'import json, sys; print("\n".join(sys.argv[2:]) % json.load(open(sys.argv[1])))' \
		$(REPORT)/registration.json \
		"" \
		"report             $(REPORT)/report.html" \
		"                   make report$(ENV:%= ENV=%)" \
		"MLflow run         %(run_id)s" \
		"                   make ui$(ENV:%= ENV=%)" \
		"registered model   %(name)s, version %(version)s" \
		"                   make serve$(ENV:%= ENV=%)"

report: $(STAMP)  ## open the last report in a browser
	$(PY) -m webbrowser -t "file://$(CURDIR)/$(REPORT)/report.html"

# Where the tracking hook puts runs and models if nobody says otherwise.
ui serve app: export MLFLOW_TRACKING_URI ?= sqlite:///$(CURDIR)/mlflow.db

# A single image gains nothing from further threads: docs/performance.md has the figures.
serve app: export OMP_NUM_THREADS ?= 1
# Thresholds that were set in the app.
serve: export DECODIFF_THRESHOLDS ?= $(wildcard data/06_models/$(DATASET)/threshold_overrides.json)

# Commands without shell syntax: make starts them itself, so that what ends make ends the server.
ui: $(STAMP)  ## open MLflow on the runs of this data set
	@$(PY) -m decodiff_pipeline.tracking.ui $(DATASET)

serve: $(STAMP)  ## answer images with the champion, or with the newest version if there is none
	@$(PY) -m decodiff_pipeline.serving.server --model models:/$(MODEL)

app: $(STAMP)  ## look at images, review what was served, compare versions, in a browser (extra app)
	@$(PY) -m decodiff_pipeline.app.server $(ENVIRONMENT)

viz: $(STAMP)  ## show pipelines and data in Kedro-Viz, in a browser (extra viz)
	@$(PY) -m decodiff_pipeline.viz $(ENVIRONMENT)

dvc-yaml: $(STAMP)  ## write dvc.yaml, or conf/ENV/dvc.yaml, from Kedro pipelines, catalog, parameters
	$(PY) -m decodiff_pipeline.dvc_stages $(ENVIRONMENT)
