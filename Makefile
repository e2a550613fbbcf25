# make demo   the whole loop on generated frames, then where the report is
# make docs   the documentation as a site in site/
# make results  the numbers and figures of docs/results from the measured tables, in seconds
# make test   lint, types, tests, and the wheel in a clean environment (what CI runs)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
LANES ?= 2
SEED ?=

.PHONY: demo docs results test lint types unit wheel fast clean

demo: $(VENV)/.installed
	$(BIN)/endedge run configs/demo.yaml --out $(OUT)

test: lint types unit wheel

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy

# In an order drawn anew each time (no test may need another before it), from a seed that is printed:
# make unit SEED=7 repeats it.
unit: $(VENV)/.developer
	$(BIN)/python -m pytest -n $(LANES) --dist loadfile --durations=30 $(SEED:%=--randomly-seed=%)

docs: $(VENV)/.developer
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python -m mkdocs build --strict --site-dir site

results: $(VENV)/.developer
	$(BIN)/python -m benchmarks.surface_page demo
	$(BIN)/python -m benchmarks.surface_page coco-infrared --name infrared
	$(BIN)/python -m benchmarks.surface_page hituav

fast: $(VENV)/.developer
	$(BIN)/python -m pytest -n $(LANES) --dist loadfile -m "not slow" $(SEED:%=--randomly-seed=%)

# The wheel with nothing but what it asks for itself, in an environment of its own.
wheel: $(VENV)/.developer
	rm -rf dist build .clean
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	$(PYTHON) -m venv .clean
	.clean/bin/python -m pip install --quiet --disable-pip-version-check dist/endedge-*.whl
	cd .clean && bin/python ../tests/wheel_check.py
	rm -rf .clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "endedge needs Python >= 3.11; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .clean build dist site *.egg-info runs
