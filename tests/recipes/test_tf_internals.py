"""Private names of TensorFlow exist, and patches are undone."""

import types

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.distribute import collective_all_reduce_strategy

from recipes import tf_internals
from recipes.data import input_pipeline
from recipes.training import compiled_steps
from recipes.training import distribution
from recipes.training import runner
from recipes.training.compiled_steps import CompiledSteps
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

NAME = tf_internals.CREATE_DEVICE_DATASET


def keep(dataset):
    return dataset


def test_create_device_dataset_exists():
    # Runs work without it, but each evaluation may end up to a minute late.
    assert callable(getattr(multi_device_iterator_ops, NAME))


@pytest.mark.parametrize("fails", [False, True])
def test_patch_is_undone(fails):
    before = getattr(multi_device_iterator_ops, NAME)
    try:
        with tf_internals.patch_device_datasets(keep):
            assert getattr(multi_device_iterator_ops, NAME) is not before
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert getattr(multi_device_iterator_ops, NAME) is before


def test_missing_name_is_not_patched(monkeypatch):
    monkeypatch.delattr(multi_device_iterator_ops, NAME)
    with tf_internals.patch_device_datasets(keep):
        assert not hasattr(multi_device_iterator_ops, NAME)
    assert not hasattr(multi_device_iterator_ops, NAME)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_device_datasets_have_no_autotuner(monkeypatch, num_replicas):
    datasets = []

    def recorded(dataset):
        datasets.append(input_pipeline.without_autotune(dataset))
        return datasets[-1]

    config = make_config(num_replicas=num_replicas)
    replicas = distribution.make_strategy(config)
    data = input_pipeline.make_data(config, TASK)
    trainer = runner.build_trainer(config, TASK, data, replicas)
    monkeypatch.setattr(compiled_steps, "without_autotune", recorded)
    steps = CompiledSteps(trainer, data, replicas)
    next(steps.training_batches(0))
    assert len(datasets) == num_replicas
    for dataset in datasets:
        assert dataset.options().autotune.enabled is False


def test_frozen_function_has_no_variables():
    variable = tf.Variable([2.0, 3.0])
    function = tf.function(lambda x: x * variable).get_concrete_function(
        tf.TensorSpec((2,))
    )
    frozen = tf_internals.freeze_variables(function)
    assert function.variables and not frozen.variables
    (result,) = frozen(tf.constant([5.0, 7.0]))
    np.testing.assert_array_equal(result, [10.0, 21.0])


def test_onnx_optimizers_exist():
    pytest.importorskip("tf2onnx")
    optimizers = tf_internals.get_onnx_optimizers()
    assert "optimize_transpose" in optimizers


def test_health_check_interval_exists():
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    before = extended._check_health_interval
    strategy = types.SimpleNamespace(extended=extended.__new__(extended))
    tf_internals.set_health_check_interval(strategy, before + 7)
    assert strategy.extended._check_health_interval == before + 7
    assert extended._check_health_interval == before


def test_op_determinism_can_be_undone():
    assert not tf_internals.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    try:
        assert tf_internals.is_op_determinism_enabled()
    finally:
        tf_internals.disable_op_determinism()
    assert not tf_internals.is_op_determinism_enabled()
