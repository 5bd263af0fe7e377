# demo: run the quickstart.  test: the test suite.  docs: the site, in build/docs.
# audit: dependencies, their licences and holes.
# Each sets up what it needs by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := .venv-audit

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo test test-heavy lint docs audit clean

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[sim,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/fedmedformer simulate quickstart --out runs/quickstart --overwrite

# A worker a core, each file in one of them; tests that start Flower wait for processes for two thirds
# of their time; two files of them are all that two cores bear, in their own order, or the file of one
# long test would be kept for the end.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not flower and not heavy" -n logical --maxprocesses 4 --dist loadfile
	$(BIN)/python -m pytest -m "flower and not heavy" -n 2 --dist loadfile --no-loadscope-reorder

test-heavy: $(STAMP)
	$(BIN)/python -m pytest -m heavy

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Sphinx is installed beside the package, whose docstrings it reads, but only by this target.
$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "docs: build/docs/index.html"

# The tools have an environment of their own: what they need is nothing that we depend on.
$(AUDIT)/.installed: .ci/audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .ci/audit.lock
	touch $@

audit: $(STAMP) $(AUDIT)/.installed
	$(BIN)/python .ci/audit.py --tools $(AUDIT)/bin --python $(BIN)/python --out build

clean:
	rm -rf $(VENV) $(AUDIT) build *.egg-info
