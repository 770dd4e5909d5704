"""Iterators that end at once, for they have no tuner."""

import time

import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from recipes.data import autotune
from recipes.data import input_pipeline
from recipes.training import build
from recipes.training import distribution
from recipes.training.compiled_steps import Steps
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config

NAME = "_create_device_dataset"


def test_the_name_that_tensorflow_may_change_is_there():
    # Where it is not, runs still work, but each evaluation may end a minute
    # late.
    assert callable(getattr(multi_device_iterator_ops, NAME))


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_replaced_inside_is_put_back(fails):
    before = getattr(multi_device_iterator_ops, NAME)
    try:
        with autotune.off_on_devices():
            assert getattr(multi_device_iterator_ops, NAME) is not before
            if fails:
                raise ValueError
    except ValueError:
        pass
    assert getattr(multi_device_iterator_ops, NAME) is before


def test_a_tensorflow_without_that_name_is_left_as_it_is(monkeypatch):
    monkeypatch.delattr(multi_device_iterator_ops, NAME)
    with autotune.off_on_devices():
        assert not hasattr(multi_device_iterator_ops, NAME)
    assert not hasattr(multi_device_iterator_ops, NAME)


def tunes(dataset):
    return dataset.options().autotune.enabled is not False


def test_batches_are_not_tuned():
    made = input_pipeline.make(make_config(train_steps=2), TASK)
    assert not tunes(made.train(0)) and not tunes(made.evaluation())
    assert tunes(tf.data.Dataset.range(3))
    assert list(autotune.off(tf.data.Dataset.range(3))) == [0, 1, 2]


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_what_goes_to_devices_is_not_tuned(monkeypatch, num_replicas):
    made = []
    off = autotune.off

    def noted(dataset):
        made.append(off(dataset))
        return made[-1]

    config = make_config(num_replicas=num_replicas)
    replicas = distribution.make(config)
    batches = input_pipeline.make(config, TASK)
    trainer = build.build(config, TASK, batches, replicas)
    monkeypatch.setattr(autotune, "off", noted)
    steps = Steps(trainer, batches, replicas)
    next(steps.batches(0))
    # That of the input, and one a device.
    assert len(made) == 1 + num_replicas
    assert not any(map(tunes, made))


def test_iterators_end_at_once():
    config = make_config()
    replicas = distribution.make(config)
    batches = input_pipeline.make(config, TASK)
    steps = Steps(
        build.build(config, TASK, batches, replicas), batches, replicas
    )
    steps.evaluate()
    start = time.perf_counter()
    # With a tuner each end may take up to a minute.
    for _ in range(5):
        steps.evaluate()
    assert time.perf_counter() - start < 20
