# Two commands: `make book` builds the pages, `make test` runs every test.
# Both need Python 3.11 and make, and set up what else they need in .venv.

PYTHON ?= python3.11
PY := .venv/bin/python
STAMP := .venv/.installed
PEERS := .venv-bench/.installed

.DEFAULT_GOAL := help
.PHONY: help book test chapter fresh screenshots mutants bench lint clean

help:  ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
	  || sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1  \2/p' Makefile

book: $(STAMP)  ## Execute what is missing and build the book in _build/html
	@$(PY) -m tools.build

test: $(STAMP)  ## Run all tests: package, claims, chapters, pages
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 $(ARGS)

chapter: $(STAMP)  ## Execute one chapter, C=noise/diffusion-identity (AGAIN=1: even if cached)
	@test -n "$(C)" || { echo "Say which one: make chapter C=noise/diffusion-identity"; exit 2; }
	@$(PY) -m tools.chapters $(C) $(if $(AGAIN),--again)

fresh: $(STAMP)  ## Execute every chapter uncached with other seeds, SEED=1
	@test -n "$(SEED)" || { echo "Say which seed: make fresh SEED=1"; exit 2; }
	@$(PY) -m tools.chapters --fresh $(SEED) $(C)

screenshots: book  ## Photograph every page, phone and desktop, light and dark
	@$(PY) -m tools.screenshots _build/screenshots

mutants: $(STAMP)  ## Mutate the package and count how many mutants the tests kill
	@OMP_NUM_THREADS=1 $(PY) tests/mutants.py $(ARGS)

bench: $(PEERS)  ## Time against other packages: all parts, or PART=e
	@.venv-bench/bin/python -W ignore -m benchmarks $(PART)

lint: $(STAMP)  ## Check style
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

clean:  ## Remove what was built (.venv and .venv-bench stay)
	rm -rf _build

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; set PYTHON=… to name it."; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(PEERS): requirements.lock benchmarks/peers.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is needed; set PYTHON=… to name it."; exit 2; }
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peers.lock
	@touch $@
