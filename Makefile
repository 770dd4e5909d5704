PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
TORCH := .venv-torch
RUN := $(VENV)/bin/python
PYTEST := -m pytest -n auto --maxprocesses=4 --dist=worksteal

LAYERS := tests/layers tests/test_registry.py tests/test_fused_sums.py \
	tests/field/test_inputs.py tests/field/test_remat.py \
	tests/field/test_group_counts.py tests/field/test_keras_suite.py \
	tests/field/test_keras_masks.py
CONVERSION := tests/graphs tests/data tests/conversion tests/calibration tests/folding tests/recalibration \
	tests/field/test_masks.py \
	tests/field/test_nonfinite_weights.py tests/field/test_shared_arrays.py \
	tests/saving/test_hostile_files.py tests/saving/test_keras2_config.py \
	tests/field/test_command.py \
	tests/field/test_names.py
BACKEND_TESTS := $(LAYERS) $(CONVERSION) tests/test_cli.py \
	tests/test_compat.py tests/test_analysis.py

.PHONY: help demo demo-detection test test-long test-backends test-jax test-torch \
	test-oldest bench bench-recipes measure evidence lint format clean

help:
	@echo "make demo           train ResNet-20 with FRN on handwritten digits, on two CPU replicas"
	@echo "make demo-detection train a tree detector on aerial photos, on two CPU replicas"
	@echo "make test           run the tests"
	@echo "make test-long      run the slow tests: every network of keras.applications, 40 min"
	@echo "make test-backends  run test-jax and test-torch"
	@echo "make test-jax       run the tests of layers and conversion on JAX"
	@echo "make test-torch     run the tests of layers and conversion on PyTorch, in its own environment"
	@echo "make test-oldest    run these tests with the oldest supported Keras and TensorFlow"
	@echo "make bench          measure the speed of the layers and of other implementations"
	@echo "make bench-recipes  measure training steps, the loop and the input; estimate communication cost"
	@echo "make measure        measure the tables of the documentation again, 75 min"
	@echo "make evidence       train the runs behind docs/results.md and write it again, about 2 h"
	@echo "make lint           check format and style"
	@echo "make format         format the code"
	@echo "make clean          remove environments, runs and caches"

# Each environment installs one extra of setup.cfg. Most targets use .venv.
$(VENV)/ready: EXTRA := dev
$(OLDEST)/ready: EXTRA := oldest
$(TORCH)/ready: EXTRA := torch

%/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --upgrade pip
	$*/bin/python -m pip install -e '.[$(EXTRA)]'
	touch $@

demo: $(VENV)/ready
	$(RUN) recipes/imagenet.py --preset=digits --workdir=runs/demo

demo-detection: $(VENV)/ready
	$(RUN) recipes/coco.py --preset=trees --data_dir=runs/data --workdir=runs/demo-detection

test: $(VENV)/ready
	$(RUN) $(PYTEST)

test-long: $(VENV)/ready
	$(RUN) $(PYTEST) -m long

test-backends: test-jax test-torch

test-jax: $(VENV)/ready
	KERAS_BACKEND=jax $(RUN) $(PYTEST) $(BACKEND_TESTS)

test-torch: $(TORCH)/ready
	KERAS_BACKEND=torch $(TORCH)/bin/python $(PYTEST) $(BACKEND_TESTS)

test-oldest: $(OLDEST)/ready
	$(OLDEST)/bin/python $(PYTEST) $(LAYERS) $(CONVERSION)

bench: $(VENV)/ready
	$(RUN) benchmarks/layers.py --json=runs/layers.json --figure=runs/layers.png

bench-recipes: $(VENV)/ready
	$(RUN) benchmarks/train_step.py --json=runs/train_step.json
	$(RUN) benchmarks/train_step.py --model=resnet20_cifar --image_size=32 --global_batch_size=64
	$(RUN) benchmarks/train_step.py --model=resnet20_cifar --image_size=32 --global_batch_size=64 --loop
	$(RUN) -m pip download --no-deps --dest=runs foolbox==3.3.4
	$(RUN) benchmarks/input.py --wheel=runs/foolbox-3.3.4-py3-none-any.whl
	$(RUN) benchmarks/scale.py

measure: $(VENV)/ready
	$(RUN) benchmarks/layers.py --num_rounds=11 --json=docs/measured/layers.json
	$(RUN) benchmarks/train_step.py --json=docs/measured/steps_resnet50v2.json
	$(RUN) benchmarks/train_step.py --model=resnet20_cifar --image_size=32 --global_batch_size=64 --num_rounds=15 --json=docs/measured/steps_resnet20.json
	$(RUN) benchmarks/replicas.py --json=docs/measured/replicas.json
	$(RUN) benchmarks/inference.py --json=docs/measured/inference.json
	$(RUN) benchmarks/recalibration.py --json=docs/measured/recalibration.json
	$(RUN) benchmarks/demos.py --json=docs/measured/demos.json
	$(RUN) benchmarks/tables.py

evidence: $(VENV)/ready
	$(RUN) benchmarks/evidence.py
	$(RUN) benchmarks/conversion.py --json=docs/measured/conversion.json
	$(RUN) benchmarks/tables.py

lint: $(VENV)/ready
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .

format: $(VENV)/ready
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf $(VENV) $(OLDEST) $(TORCH) runs build *.egg-info .pytest_cache .ruff_cache
