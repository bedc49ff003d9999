# Every target sets up what it needs on a fresh machine: a virtual environment in .venv with the packages it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/quickstart
XDIST := -n auto --dist worksteal
# what meets transformers and its neighbours
VERSIONED := tests/modeling_looped_gpt2 tests/scripts/test_train_lm.py tests/scripts/common/test_model_loading.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-newest test-oldest lint force

help:  ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: $(VENV)/.demo  ## Train, evaluate, plot and load a small looped GPT-2: a few minutes on two CPU cores.
	$(BIN)/accelerate launch --config_file scripts/accelerate_configs/one_process.yaml scripts/train.py \
		--recipe scripts/recipes/quickstart.yaml --output_dir $(DEMO)
	$(BIN)/python scripts/evaluate.py --model $(DEMO) --task linear_regression \
		--n_shift_prompts 0 --output_dir $(DEMO)
	$(BIN)/python scripts/plot.py --metrics $(DEMO)/metrics.json --output_dir $(DEMO)
	@echo; echo "The folder loads in a process that cannot import this project:"
	@cd / && PYTHONPATH=$(abspath $(BIN)/../lib)/$$(ls $(abspath $(VENV)/lib))/site-packages \
		$(abspath $(BIN)/python) -S $(abspath scripts/predict.py) --model $(abspath $(DEMO)) --trust_remote_code
	@echo; echo "Picture: $(DEMO)/error.png"

test: $(VENV)/.test  ## Run all tests.
	$(BIN)/python -m pytest $(XDIST) $(ARGS)

test-newest: $(VENV)-newest  ## Run the tests that releases can break on the newest ones.
	$(VENV)-newest/bin/python -m pytest $(XDIST) $(or $(ARGS),$(VERSIONED) -k 'not compile')

test-oldest: $(VENV)-oldest  ## The same on the oldest that setup.cfg allows.
	$(VENV)-oldest/bin/python -m pytest $(XDIST) $(or $(ARGS),$(VERSIONED) -k 'not compile')

lint: $(VENV)/.lint  ## Check style and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/.demo: EXTRAS := train,eval,plot
$(VENV)/.test: EXTRAS := test
$(VENV)/.lint: EXTRAS := dev

# a stamp for every target, older than the dependencies when they change
$(VENV)/.%: Makefile setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# asked of the index every time: a release of today is to be met today
$(VENV)-newest $(VENV)-oldest: $(VENV)-%: force
	test -x $@/bin/python || $(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		--constraint constraints-$*.txt --editable '.[test]'

force:
