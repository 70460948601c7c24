# The five commands one needs. PYTHON may name the interpreter of a virtual environment.
PYTHON ?= python

.PHONY: setup test lint docs bench

setup:  ## install the package with everything its tests need
	$(PYTHON) -m pip install --upgrade pip
	$(PYTHON) -m pip install -e '.[test]'

test:  ## all tests, a process of one thread a core
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist worksteal

lint:  ## what CI checks beside the tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy anomalib_synth

docs:  ## the site, in build/docs
	$(PYTHON) -m sphinx -W -q -b html docs build/docs

bench:  ## speed of every family against PerlinAnomalyGenerator
	OMP_NUM_THREADS=1 $(PYTHON) benchmarks/speed.py
