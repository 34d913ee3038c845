# make demo | test | test-slow | lint | clean
#
# Every target sets itself up: in the active environment of venv or conda (conda's base is left alone), or else in .venv,
# made with $(PYTHON), and filled once with what constraints.txt pins (about 5 minutes; 7 GB, 10 GB while it installs).

PYTHON ?= python3
CONDA  := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
VENV   := $(or $(VIRTUAL_ENV),$(CONDA),$(CURDIR)/.venv)
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.dynconv-plugins-installed
JOBS   ?= 2
# make demo DEMO='--size smallest'; make test TEST='tests/engine -x'
DEMO   ?=
TEST   ?=

# The hosts' own launchers call plain `python`.
export PATH := $(BIN):$(PATH)
# Threads that spin while they wait make a busy machine ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-slow lint clean install

demo: $(STAMP)
	@$(BIN)/python -m dynconv_plugins.demo $(DEMO)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m 'not slow' --durations=40 $(TEST)

# What `test` leaves out.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) -m slow --durations=40 $(TEST)

lint: $(STAMP)
	$(BIN)/python -m ruff check .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo 'error: Python 3.11.5 or newer is needed by the pinned set: make PYTHON=python3.11 ...' >&2; exit 2; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV): about 5 minutes and 7 GB (10 GB free while it installs), once"
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[all,dev]' -c constraints.txt
	@touch $@

# Removes what the targets made here, and nothing of a user's: data/ and other runs stay.
clean:
	rm -rf .venv build dist runs/demo *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
