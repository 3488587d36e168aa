# Everything else is the kitpost command: .venv/bin/kitpost --help
.DEFAULT_GOAL := help
.PHONY: help setup demo up test check fix proof bench golden lock styles

# The first that runs and is new enough: a name alone may be another tool's empty promise.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
# Some set this to keep bytecode out of a source tree; here every process would compile Prefect anew, five seconds each.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

help:  ## what can be made
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## the virtual environment with every dependency, checked by hash

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || \
	  { echo "kitpost needs Python 3.11 or later: install it, or say where it is with make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) >/dev/null || \
	  { rm -rf $(VENV); echo "This Python can't make virtual environments: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up; the first time takes a minute or two."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## a fictional borough from order to text or clinic task, with a report at the end
	@$(BIN)/python -m app.demo

up: setup  ## the same services kept running, for looking around; Ctrl-C ends them
	@$(BIN)/kitpost up

test: setup  ## the quick tests
	@PYTHONHASHSEED=0 $(BIN)/pytest -q -n auto --dist loadfile  # a seed: xdist's workers must agree on the order of sets

proof: setup  ## the slow and thorough tests: kills, servers, the whole journey
	@PYTHONHASHSEED=0 $(BIN)/pytest -q -m proof -n auto --dist loadfile --no-loadscope-reorder

# All checks run, whatever the earlier ones say; it fails if any did.
check: setup  ## lint, format, types, import contracts and the lock; changes nothing
	@failed=; \
	$(BIN)/ruff check --quiet || failed="$$failed lint"; \
	$(BIN)/ruff format --quiet --check || failed="$$failed format"; \
	$(BIN)/mypy --no-error-summary || failed="$$failed types"; \
	$(BIN)/lint-imports --no-logo > $(VENV)/contracts.txt || { cat $(VENV)/contracts.txt; failed="$$failed contracts"; }; \
	! grep -nE '://|^ *-(i|f)\b|^ *--(extra-)?index|^ *--find-links' requirements.lock || failed="$$failed lock"; \
	test -z "$$failed" && echo "All checks passed." || { echo "Failed:$$failed" >&2; exit 1; }

fix: setup  ## repair what lint and format can
	@$(BIN)/ruff check --quiet --fix || true
	@$(BIN)/ruff format --quiet

bench: setup  ## what docs/performance.md reports
	@$(BIN)/pytest -q -m bench

golden: setup  ## write the golden files anew, to be read in the diff
	@$(BIN)/pytest -q --golden

lock:  ## pin every dependency with its hashes (needs uv)
	@uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --python-version 3.11 --output-file requirements.lock

# The one npm package whose files we serve, and the compiler of its style sheet; neither is needed to run anything.
styles:  ## build app/web/static/nhsuk-frontend.css anew (needs npm)
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	  npm install --silent --no-save --ignore-scripts --prefix "$$dir" nhsuk-frontend@10.6.1 sass@1.108.2 && \
	  "$$dir/node_modules/.bin/sass" --load-path="$$dir/node_modules" --style=compressed --no-source-map --no-charset \
	    app/web/styles/nhsuk-frontend.scss app/web/static/nhsuk-frontend.css
