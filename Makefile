# Every target sets up what it needs on a fresh machine: a virtual environment in .venv with the packages it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/quickstart

.DEFAULT_GOAL := help
.PHONY: help demo test lint

help:  ## Show this list.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.demo  ## Train, evaluate, plot and load a small looped GPT-2: a few minutes on two CPU cores.
	$(BIN)/accelerate launch --config_file scripts/accelerate_configs/one_process.yaml scripts/train.py \
		--recipe scripts/recipes/quickstart.yaml --output_dir $(DEMO)
	$(BIN)/python scripts/evaluate.py --model $(DEMO) --task linear_regression \
		--n_shift_prompts 0 --output_dir $(DEMO)
	$(BIN)/python scripts/plot.py --metrics $(DEMO)/metrics.json --output_dir $(DEMO)
	@echo; echo "The folder loads in a process that cannot import this project:"
	@cd / && PYTHONPATH=$(abspath $(BIN)/../lib)/$$(ls $(abspath $(VENV)/lib))/site-packages \
		$(abspath $(BIN)/python) -S $(abspath scripts/predict.py) --model $(abspath $(DEMO))
	@echo; echo "Picture: $(DEMO)/error.png"

test: $(VENV)/.test  ## Run all tests.
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

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
