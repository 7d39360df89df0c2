# make train   train a student on LavaGapS7 with the embedded teacher (ARGS="--seed 2" adds flags)
# make test    the tests that take seconds            make test-all   the slow and end-to-end ones, too
#              (each on all cores: ARGS="-n 0 -k vector" runs some of them in one process)
# make check   lint, formatting and types
# make figures redraw every figure and table of the results from the committed rows
# make docs    build the site into site/           make dist      build the wheel and the source archive into dist/
# Each sets up what it needs in .venv first.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: train test test-all check figures docs dist

train: $(INSTALLED)
	$(BIN)/python algos/ppo_lvlm2p_replay.py --total-timesteps 12000 $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto $(ARGS)

test-all: $(INSTALLED)
	$(BIN)/python -m pytest -n auto -m "slow or not slow" $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

figures: $(INSTALLED)
	$(BIN)/python benchmarks/plot.py

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

dist: $(INSTALLED)
	$(BIN)/python -m build --no-isolation

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed, and $(PYTHON) is older: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --constraint constraints.txt --editable ".[algos,dev,docs,envs,labels,play,postgres,sb3]"
	@touch $@
