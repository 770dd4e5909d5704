"""The private names of Keras and TensorFlow in training still exist."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("training needs TensorFlow", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from keras_norm.training import tf_internals  # noqa: E402


@pytest.fixture
def model():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="head")]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    model.evaluate(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    return model


def test_compile_loss_lists_its_arguments_and_losses(model):
    loss = tf_internals.compile_loss_of(model)
    assert isinstance(loss, tf_internals.CompileLoss)
    arguments = tf_internals.compile_loss_arguments(loss)
    assert arguments["loss"] == "mse" and arguments["loss_weights"] is None
    copy = tf_internals.CompileLoss(**arguments)
    y = tf.ones((4, 2))
    assert float(copy(y, 3.0 * y)) == 4.0
    (entry,) = tf_internals.get_losses(copy)
    assert entry.loss is not None and entry.loss_weights is None
    tf_internals.replace_losses(copy, lambda _: lambda *args: 7.0)
    assert float(copy(y, y)) == 7.0


def test_metrics_are_paired_with_their_outputs(model):
    compiled = tf_internals.compile_metrics_of(model)
    y, y_pred = tf.ones((4, 2)), tf.zeros((4, 2))
    ((metric, data),) = tf_internals.pair_metrics(compiled, y, y_pred, None)
    assert data[0] is y and data[1] is y_pred and data[2] is None
    function, kwargs = tf_internals.get_metric_function(metric)
    assert float(function(y, y_pred, **kwargs)[0]) == 1.0
    tf_internals.set_metric_function(metric, lambda y, y_pred: y_pred - 5.0)
    metric.update_state(y, y_pred)
    assert float(metric.result()) != 1.0


def test_layers_list_their_metrics():
    class Measured(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mean = keras.metrics.Mean(name="mean")

    layer = Measured()
    assert [m.name for m in tf_internals.get_layer_metrics(layer)] == ["mean"]
    assert not tf_internals.get_layer_metrics(keras.layers.Dense(1))


def test_masks_are_attributes_of_tensors():
    outputs = [tf.ones((2, 3)), tf.ones((2, 3))]
    mask = tf.constant([[True, False, True]] * 2)
    tf_internals.set_masks(outputs, [mask, None])
    assert tf_internals.get_masks(outputs)[0] is mask
    assert tf_internals.get_masks(outputs)[1] is None
    weights = tf_internals.apply_mask(None, mask, "float32", reduction="sum")
    np.testing.assert_array_equal(weights, [[1, 0, 1]] * 2)


def test_layers_know_their_rematerialization_scope():
    with keras.RematScope(mode="full"):
        layer = keras.layers.Dense(1)
    assert tf_internals.is_rematerialized(layer)
    assert not tf_internals.is_rematerialized(keras.layers.Dense(1))
    with keras.RematScope(mode="list_of_layers", layer_names=["a"]):
        named = [keras.layers.Dense(1, name=name) for name in "ab"]
    assert list(map(tf_internals.is_rematerialized, named)) == [True, False]


def test_strategies_decide_on_merge_calls():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    before = strategy.extended._use_merge_call()
    with tf_internals.without_merge_call(strategy):
        assert strategy.extended._use_merge_call() is False
    assert strategy.extended._use_merge_call() == before


@pytest.mark.parametrize(
    "name",
    [
        "_get_metrics_result_or_logs",
        "_maybe_symbolic_build",
        "_symbolic_build",
        "_untrack_variable",
    ],
)
def test_keras_models_have_the_private_methods_of_replica_model(name):
    assert callable(getattr(keras.Model, name))
