# demo: run the quickstart.  docs: the site, in build/docs.
# test: what most changes can break.  test-all: what CI runs.
# browser: axe-core on the pages, in Chromium.
# audit: dependencies, their licences and holes.
# Each sets up what it needs by itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
AUDIT := .venv-audit

export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo test test-all test-heavy browser lint docs audit clean

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[sim,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/fedmedformer simulate quickstart --out runs/quickstart --overwrite

# Every part prints how long it took and its ten slowest tests. xdist keeps the tests of a file on one
# worker. Tests that start Flower mostly wait for processes, and two files of them are all that two
# cores bear; they keep their order, so that the longest file does not come last.
PYTEST := $(BIN)/python -m pytest --durations=10 --durations-min=1
UNIT := -n logical --maxprocesses 4 --dist loadfile
FLOWER := -n 2 --dist loadfile --no-loadscope-reorder
define part
	@echo "== $(1)"; begin=$$(date +%s); $(2) || exit $$?; \
	echo "== $(1): $$(( $$(date +%s) - begin )) s"
endef

test: $(STAMP)
	$(call part,unit tests,$(PYTEST) -m "not flower and not slow and not heavy" $(UNIT))
	$(call part,one run through Flower,$(PYTEST) -m "flower and smoke")

# What is slow and rarely breaks: fuzzing, benchmarks, real processes, kill -9 of each of them.
test-all: test
	$(call part,slow tests,$(PYTEST) -m "slow and not flower and not heavy" $(UNIT))
	$(call part,tests that start Flower,$(PYTEST) -m "flower and not smoke and not heavy" $(FLOWER))

test-heavy: $(STAMP)
	$(call part,heavy tests,$(PYTEST) -m heavy)

# axe-core (MPL-2.0) is a tool of this target alone: nothing of it is installed or shipped. Chromium
# has to be there.
AXE := axe-core-4.14.1
build/axe/package/axe.min.js:
	mkdir -p build/axe
	cd build/axe && npm pack --silent $(subst axe-core-,axe-core@,$(AXE))
	cd build/axe && echo "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745  $(AXE).tgz" | sha256sum --check --quiet
	tar -xzf build/axe/$(AXE).tgz -C build/axe package/axe.min.js
	touch $@

browser: $(STAMP) build/axe/package/axe.min.js
	$(BIN)/python -m pytest -m browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Sphinx is installed beside the package, whose docstrings it reads, but only by this target.
$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -E -a -W --keep-going -q -b html docs build/docs
	@echo "docs: build/docs/index.html"

# The tools have an environment of their own: what they need is nothing that we depend on.
$(AUDIT)/.installed: .ci/audit.lock
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r .ci/audit.lock
	touch $@

# The lock file has the tools of the site too, so they are installed and looked up as well.
audit: $(VENV)/.docs $(AUDIT)/.installed
	$(BIN)/python .ci/audit.py --tools $(AUDIT)/bin --python $(BIN)/python --out build

clean:
	rm -rf $(VENV) $(AUDIT) build *.egg-info
