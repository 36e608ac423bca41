# make demo and make test do all the set-up they need: a virtual environment in .venv, and the install.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-slow check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "setup: virtual environment in $(VENV), about 2 GB, 1 to 4 minutes the first time"
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 12), f"Python 3.11 or 3.12 is needed, this is {sys.version}"'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	@echo "demo: 8 small language models on this machine's own code, docs and licences; under 4 minutes on 2 cores"
	rm -rf runs/demo
	$(RUN)/shoal run examples/demo.yaml

test: $(STAMP)
	@echo "test: all but the slow ones, under 8 minutes on 2 cores"
	$(RUN)/python -m pytest

test-slow: $(STAMP)
	@echo "test-slow: the tests that take minutes each"
	$(RUN)/python -m pytest -m slow

check: $(STAMP)
	@echo "check: lint, format, types and layers, under a minute"
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy policies search
	$(RUN)/python -m pytest tests/test_layers.py

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
