"""Moments of real networks, and of models on several replicas."""

import functools

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.saving import load
from tests.conversion.test_trained import labelled  # noqa: F401
from tests.conversion.test_trained import network  # noqa: F401
from tests.recalibration.test_recalibrate import assert_moments
from tests.recalibration.test_recalibrate import assert_same_statistics
from tests.recalibration.test_recalibrate import draw_weights
from tests.recalibration.test_recalibrate import moments
from tests.recalibration.test_recalibrate import residual_network

NETWORKS = (
    "ResNet50",
    "MobileNetV2",
    "DenseNet121",
    "EfficientNetB0",
    "Xception",
)
BATCH_NORM = keras.layers.BatchNormalization


def assert_recalibrated(model, x, tolerance=1e-5):
    """Checks every layer on one eager call of the whole network."""
    norms = [n for n in model.layers if isinstance(n, BATCH_NORM)]
    part = keras.Model(model.inputs[0], [norm.input for norm in norms])
    x = keras.ops.convert_to_tensor(x, "float32")
    for norm, inputs in zip(norms, part(x, training=False), strict=True):
        inputs = keras.ops.convert_to_numpy(inputs)
        assert_moments(norm, moments(inputs), tolerance)
    return norms


def draw_statistics(model, generator):
    """Assigns random values to every weight of batch normalization."""
    for layer in model.layers:
        if isinstance(layer, BATCH_NORM):
            for weight in layer.weights:
                low = 0.5 if weight.name in ("gamma", "moving_variance") else -1
                weight.assign(generator.uniform(low, 1.5, weight.shape))


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_applications(name):
    generator = np.random.default_rng(0)
    size = 71 if name == "Xception" else 32
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10
    )
    draw_statistics(model, generator)
    x = generator.normal(size=(64, size, size, 3))
    new, report = keras_norm.recalibrate(model, x, batch_size=64)
    norms = assert_recalibrated(new, x)
    assert len(report.recalibrated) == len(norms)
    for batch_size in (1, 7):
        other, _ = keras_norm.recalibrate(model, x, batch_size=batch_size)
        for got, expected in zip(
            other.get_weights(), new.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(got, expected)
    other, _ = keras_norm.recalibrate(model, generator.permutation(x))
    assert_same_statistics(other, new)


def mirrored(num_replicas):
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(num_replicas)],
        tf.distribute.ReductionToOneDevice(),
    )


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute"
)
@pytest.mark.parametrize("num_replicas", [2, 4])
def test_deep_network_on_several_replicas(num_replicas):
    generator = np.random.default_rng(0)
    make = functools.partial(
        keras.applications.MobileNetV2,
        weights=None,
        input_shape=(32, 32, 3),
        classes=10,
    )
    plain = make()
    draw_statistics(plain, generator)
    x = generator.normal(size=(40, 32, 32, 3))
    expected, _ = keras_norm.recalibrate(plain, x)
    strategy = mirrored(num_replicas)
    with strategy.scope():
        model = make()
        model.set_weights(plain.get_weights())
        new, _ = keras_norm.recalibrate(model, x, batch_size=7)
    for got, wanted in zip(
        new.get_weights(), expected.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.long
def test_cifar_network(network, labelled):  # noqa: F811
    images, _ = labelled
    model, _ = load.load_model(network)
    for batch_size in (1, 7, 64):
        new, report = keras_norm.recalibrate(
            model, images, batch_size=batch_size
        )
        assert len(report.recalibrated) == 6
        assert len(assert_recalibrated(new, images)) == 6


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute"
)
@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_model_on_several_replicas(num_replicas):
    import tensorflow as tf

    generator = np.random.default_rng(0)
    plain = draw_weights(residual_network(), generator)
    x = generator.normal(size=(24, 9, 7, 3)).astype("float32")
    expected, _ = keras_norm.recalibrate(plain, x)
    strategy = mirrored(num_replicas)
    with strategy.scope():
        model = residual_network()
        model.set_weights(plain.get_weights())
        inside, _ = keras_norm.recalibrate(model, x, batch_size=7)
    outside, _ = keras_norm.recalibrate(model, x, batch_size=7)
    for new in (inside, outside):
        assert_same_statistics(new, expected)
    # Every replica has the new statistics.
    norm = inside.get_layer("stem")
    values = strategy.run(lambda: tf.identity(norm.moving_mean.value))
    for value in strategy.experimental_local_results(values):
        np.testing.assert_array_equal(
            value, inside.get_layer("stem").moving_mean
        )
