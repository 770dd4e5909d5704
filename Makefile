PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help demo test test-backends lint format clean

help:
	@echo "make demo           train ResNet-20 with FRN on real digits, two replicas"
	@echo "make test           run the tests"
	@echo "make test-backends  run the layers' tests on JAX, after make test on TensorFlow"
	@echo "make lint           check format and style"
	@echo "make format         format the code"
	@echo "make clean          remove the environment, runs and caches"

# Everything the other targets need, in one environment.
$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --upgrade pip
	$(RUN) -m pip install -e '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(RUN) recipes/imagenet.py --preset=digits --workdir=runs/demo

test: $(VENV)/ready
	$(RUN) -m pytest

test-backends: $(VENV)/ready
	KERAS_BACKEND=jax $(RUN) -m pytest tests/layers tests/test_registry.py

lint: $(VENV)/ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

format: $(VENV)/ready
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .ruff_cache
