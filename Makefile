# Everything goes through .venv; nothing outside of this folder is touched.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# A small machine has no use for four instances, and the demo is to be done in three minutes.
DEMO := --several.instance-count 2 --tuning.trials 4 --tuning.epochs 2 --hyperparameters.epochs 5 \
	--traffic.requests-per-second 5 --traffic.peak-requests-per-second 50 \
	--traffic.seconds-per-level 1 --traffic.most-callers 8

# A file's tests share what they have started; the files run in the order of tests/conftest.py.
IN_PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo local-aws ui deploy serve reference check test test-ui lint types toolkit clean

help:            ## list what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv and install everything into it

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[local,dev]'
	@$(BIN)/python -m deployments.prefect_server -- true  # makes its database, which takes a while
	@touch $@

toolkit: $(INSTALLED)  ## AWS's own runner of training scripts, to compare with; needs a C compiler
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[toolkit]'

demo: $(INSTALLED)  ## the whole journey on this machine: no account, no Docker
	@$(BIN)/python -m deployments.prefect_server --early -- $(BIN)/python -m deployments.local_aws --kept -- \
		$(BIN)/python -m flows.operationalize $(DEMO)

local-aws: $(INSTALLED)  ## keep the local AWS running; in another terminal: eval "$$(cat .local_aws/environment.sh)"
	@$(BIN)/python -m deployments.local_aws

ui: $(INSTALLED)  ## the Prefect UI over everything that ran here
	@$(BIN)/python -m deployments.prefect_server

deploy: $(INSTALLED)  ## put every flow into the work pool of the Prefect server (PREFECT_API_URL, or that of make ui)
	@export PREFECT_API_URL="$${PREFECT_API_URL:-http://127.0.0.1:4200/api}" SAGEMAKER_FLOWS_CHECKOUT="$(CURDIR)"; \
	$(BIN)/prefect work-pool inspect sagemaker-flows >/dev/null 2>&1 || \
		$(BIN)/prefect work-pool create --type process sagemaker-flows && \
	$(BIN)/prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml && \
	$(BIN)/python -m deployments.automations

serve: $(INSTALLED)  ## run every deployment from one process
	@PREFECT_API_URL="$${PREFECT_API_URL:-http://127.0.0.1:4200/api}" $(BIN)/python -m deployments.serve

reference: $(INSTALLED)  ## write docs/reference/flows.md anew, from the signatures of the flows
	@$(BIN)/python -m deployments.reference

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types  ## the quick checks
	$(BIN)/pytest -m "not slow" $(IN_PARALLEL)

test: lint types  ## every check; needs Chromium
	$(BIN)/pytest $(IN_PARALLEL)

test-ui: $(INSTALLED)  ## the pages in a browser: the Prefect UI, the local AWS's console; needs Chromium
	$(BIN)/pytest tests/ui

clean:           ## remove what runs have left here; .venv stays
	rm -rf runs .local_aws .prefect .pytest_cache .mypy_cache .ruff_cache
