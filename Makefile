# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3.14 python3; do $$name -c pass 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST_ARGS ?=
BENCH_ARGS ?=

# what users import; every name in it has a docstring
PUBLIC := $(wildcard $(addprefix airflow_provider_emqx/,exceptions.py hooks operators sensors triggers \
    notifications transfers testing/__init__.py testing/broker.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv check lint types layers dead-code docstrings words docs operations test demo ui bench soak \
        test-matrix test-standalone test-celery test-live dist test-wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

venv: $(INSTALLED) ## create .venv with the package, its extras and the tools

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

check: lint types layers dead-code docstrings words docs ## every static check

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

layers: $(INSTALLED)
	$(BIN)/python .ci/layers.py airflow_provider_emqx

dead-code: $(INSTALLED)
	$(BIN)/python .ci/dead_code.py

docstrings: $(INSTALLED)
	$(BIN)/interrogate -v --omit-covered-files $(PUBLIC)

words: $(INSTALLED)
	$(BIN)/python .ci/words.py

docs: $(INSTALLED) ## build the documentation, warnings are errors
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html

operations: $(INSTALLED) .ci/support.py .ci/examples.py ## write the table of operations and the example DAGs into docs/
	$(BIN)/python .ci/support.py
	$(BIN)/python .ci/examples.py

test: $(INSTALLED) ## the test suite, against a fake broker of both generations
	$(BIN)/pytest --numprocesses=auto --dist=worksteal --cov --cov-report=term $(if $(PYTEST_ARGS),$(PYTEST_ARGS),--cov-fail-under=90)

demo: $(INSTALLED) .ci/demo.py ## DAGs provision 10,000 device users, and roll out a firmware to devices that reply
	$(BIN)/python .ci/demo.py

ui: $(INSTALLED) ## Airflow on this machine with the example DAGs and a broker to play with
	.ci/ui

bench: $(INSTALLED) .ci/bench.py ## throughput and CPU per row, against a broker of a real one's speed
	$(BIN)/python .ci/bench.py $(BENCH_ARGS)

soak: $(INSTALLED) .ci/soak.py ## hours of waiting, provisioning and commands under faults
	$(BIN)/python .ci/soak.py

test-matrix: $(INSTALLED) .ci/test-matrix ## the test suite on every supported Airflow, each in a venv of its own
	.ci/test-matrix

test-standalone: $(INSTALLED) tests/standalone ## scheduler, triggerer and API server of a real Airflow
	$(BIN)/pytest -m standalone tests/standalone $(PYTEST_ARGS)

test-celery: .ci/test-celery ## two Celery workers, redis and PostgreSQL, in a venv of its own
	.ci/test-celery $(PYTEST_ARGS)

test-live: $(INSTALLED) tests/live ## the suite for real brokers: EMQX_TEST_URL, EMQX_TEST_KEY, EMQX_TEST_SECRET
	$(BIN)/pytest -m live tests/live $(PYTEST_ARGS)

dist: $(INSTALLED) ## wheel and sdist, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

test-wheel: dist .ci/wheel-test ## the wheel in an empty environment, for each of AIRFLOW_VERSIONS
	.ci/wheel-test $(AIRFLOW_VERSIONS)

clean: ## remove everything that was made here
	rm -rf $(VENV) .venv-* .build .demo .ui dist build docs/_build .coverage* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
