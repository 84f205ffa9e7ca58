# Two commands do all the set-up: `make demo` and `make test`. Each makes .venv where it is missing and keeps it otherwise.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DATA ?=
DEMO_OUT ?= demo
# processes of the tests, with one thread each: threads of several processes on the same cores wait for one another
WORKERS ?= 2

.PHONY: demo test lint format docs linkcheck clean

# Byte code is written by all cores, as pip would use one, and not for the packages' own tests. Packages hold templates
# that do not compile: that is no fault.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/|/testing/_internal/' $(VENV)/lib > /dev/null 2>&1 || true
	touch $@

demo: $(VENV)/.installed
	$(BIN)/nnunetv2_levit demo --output $(DEMO_OUT) $(if $(DATA),--data $(DATA))

# mypy has one process, so it runs beside the tests
test: $(VENV)/.installed
	$(BIN)/ruff check nnunetv2_levit tests docs
	$(BIN)/ruff format --check nnunetv2_levit tests docs
	$(BIN)/mypy & types=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal; tested=$$?; \
	wait $$types && exit $$tested

lint: $(VENV)/.installed
	$(BIN)/ruff check nnunetv2_levit tests docs

format: $(VENV)/.installed
	$(BIN)/ruff check --fix nnunetv2_levit tests docs
	$(BIN)/ruff format nnunetv2_levit tests docs

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

# warnings are errors: a link to a page, heading or file that is not there is one
docs: $(VENV)/.docs-installed
	$(BIN)/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# asks every address outside for an answer, so it needs internet
linkcheck: $(VENV)/.docs-installed
	$(BIN)/sphinx-build -W --keep-going -b linkcheck docs docs/_build/linkcheck

clean:
	rm -rf $(VENV) build *.egg-info demo docs/_build
