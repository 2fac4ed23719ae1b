# Every target does its own set-up. It needs make and Python 3.11; everything else goes into .venv.

BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench-installed
IS_PYTHON_3_11 := import sys; sys.exit(sys.version_info[:2] != (3, 11))

# The interpreter that makes .venv; `make install PYTHON=/path/to/python3.11` overrides the search.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3 python)

# Among which `make test` divides the files of tests. Many tests wait for processes, so there may be more than cores.
PROCESSES ?= 3

.DEFAULT_GOAL := help
.PHONY: help install demo bench soak examples test test-deploy lint types arrows protos protos-check deploy-check metrics-page \
    metrics-check format lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Make .venv with the locked packages and Gradwire itself.

$(INSTALLED): requirements.lock pyproject.toml
	@if ! $(BIN)/python -c '$(IS_PYTHON_3_11)' 2>/dev/null; then \
	    for candidate in $(CANDIDATES); do \
	        if "$$candidate" -c '$(IS_PYTHON_3_11)' 2>/dev/null; then found="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "error: no Python 3.11 among: $(CANDIDATES)." >&2; \
	        echo "       Install it, or name it: make install PYTHON=/path/to/python3.11" >&2; \
	        exit 1; \
	    fi; \
	    echo "install: making .venv with $$found"; \
	    "$$found" -m venv --clear .venv; \
	fi
	@echo "install: fetching and checking the packages of requirements.lock (TensorFlow is large: up to a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@echo "install: adding Gradwire itself, as an editable package"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
	@echo "install: done; the command is $(BIN)/gradwire"

demo: $(INSTALLED) ## Train a small model on a server of its own, and show it.
	@$(BIN)/gradwire demo

bench: $(INSTALLED) $(BENCH_INSTALLED) ## Measure side by side with the peers: MODELS=mlp_small,cnn for a part, ROUNDS=1, QUICK=1.
	@$(BIN)/python -m benchmarks $(if $(MODELS),--models $(MODELS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(QUICK),--quick)

soak: $(INSTALLED) ## Submit jobs to a service for an hour, and watch its coordinator's memory: MINUTES=5 for less.
	@$(BIN)/python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

# What only Ray Train needs, in a folder that only its processes see: Gradwire is measured as it is installed.
$(BENCH_INSTALLED): benchmarks/requirements.lock $(INSTALLED)
	@echo "bench: fetching and checking the packages of benchmarks/requirements.lock"
	@rm -rf .venv/bench
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	    --target .venv/bench -r benchmarks/requirements.lock
	@touch $@

examples: $(INSTALLED) ## Run every example and look at what it reaches (minutes): NAMES="text heads" for a part.
	@$(BIN)/python -m examples $(NAMES)

test: lint types arrows protos-check deploy-check metrics-check ## Run every check, then every test that needs no Docker.
	@echo "test: pytest, in $(PROCESSES) processes"
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-deploy: $(INSTALLED) ## Run the containers for real: needs Docker with Compose, or Debian and root to start one.
	@ENGINE="$(ENGINE)" PROMETHEUS_IMAGE="$${PROMETHEUS_IMAGE:-prom/prometheus:v2.53.0}" deploy/with-engine $(BIN)/python -m pytest tests/deploy

lint: $(INSTALLED) ## Check style and format (ruff).
	@echo "lint: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --diff .

types: $(INSTALLED) ## Check types (mypy, strict).
	@echo "types: mypy"
	@$(BIN)/mypy

arrows: $(INSTALLED) ## Check which folder imports which (import-linter).
	@echo "arrows: import-linter"
	@$(BIN)/lint-imports --no-logo

protos: $(INSTALLED) ## Generate the Python code of the .proto files anew.
	@$(BIN)/python -m protos.generate

protos-check: $(INSTALLED) ## Check the .proto files, and that the committed code is theirs (buf lint).
	@echo "protos: buf lint, and generated code"
	@$(BIN)/buf lint protos
	@$(BIN)/python -m protos.generate --check

deploy-check: $(INSTALLED) ## Check the Dockerfile (hadolint) and docker-compose.yml (Compose itself); needs no Docker.
	@echo "deploy: hadolint, docker-compose config"
	@$(BIN)/hadolint deploy/Dockerfile
	@$(BIN)/docker-compose --profile gpu -f deploy/docker-compose.yml config --quiet
	@GRADWIRE_HEAD=192.0.2.1 GRADWIRE_TLS_CERT=cert.pem GRADWIRE_TLS_KEY=key.pem $(BIN)/docker-compose --profile gpu \
	    -f deploy/docker-compose.yml -f deploy/compose.hosts.yml -f deploy/compose.tls.yml config --quiet

metrics-page: $(INSTALLED) ## Write docs/metrics.md anew from service/metrics/catalogue.py.
	@$(BIN)/python -m service.metrics.page

metrics-check: $(INSTALLED) ## Check that docs/metrics.md is what the catalogue says.
	@echo "metrics: docs/metrics.md"
	@$(BIN)/python -m service.metrics.page --check

format: $(INSTALLED) ## Format the code and put imports in order.
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format --quiet .

lock: $(INSTALLED) ## Write requirements.lock anew from pyproject.toml; packages that still fit keep their version.
	@echo "lock: pip-compile"
	@$(BIN)/pip-compile --quiet --allow-unsafe --extra=compute --extra=dev --extra=service --generate-hashes \
	    --no-emit-find-links --no-emit-index-url --output-file=requirements.lock --strip-extras pyproject.toml
	@$(BIN)/pip-compile --quiet --unsafe-package=numpy --constraint=requirements.lock --generate-hashes \
	    --no-emit-find-links --no-emit-index-url --output-file=benchmarks/requirements.lock --strip-extras \
	    benchmarks/requirements.in
	@for image in coordinator:service worker:service,compute worker-gpu:service,gpu; do \
	    $(BIN)/pip-compile --quiet --allow-unsafe --constraint=requirements.lock --generate-hashes \
	        --no-emit-find-links --no-emit-index-url --strip-extras $$(printf -- '--extra=%s ' $$(echo $${image#*:} | tr , ' ')) \
	        --output-file=deploy/$${image%%:*}.lock pyproject.toml || exit 1; \
	done
	@$(BIN)/pip-compile --quiet --allow-unsafe --constraint=requirements.lock --generate-hashes \
	    --no-emit-find-links --no-emit-index-url --output-file=deploy/build.lock --strip-extras deploy/build.in

clean: ## Remove caches and what builds leave behind; .venv stays.
	@rm -rf build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
