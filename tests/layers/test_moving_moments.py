"""Inference with moving moments is Keras' own, bit by bit."""

import keras
import numpy as np
import pytest

from keras_norm import BatchNormalization
from keras_norm import FrozenBatchNormalization
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.backend_gradients import value_and_gradients

each_layer = pytest.mark.parametrize(
    "make", [BatchNormalization, FrozenBatchNormalization]
)


def draw(shape, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(1.5, 3.0, shape).astype("float32")


def set_weights(layer):
    """Gives each weight values that depend on its name alone."""
    for weight in layer.weights:
        seed = sum(map(ord, weight.name))
        weight.assign(np.abs(draw(weight.shape, seed)) + 0.1)


def model_of(layer, shape):
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    set_weights(layer)
    return model


# Each shape with both weights, and without one or both of them in turn.
SHAPES = [
    ((6, 5), -1),
    ((4, 7, 5), -1),
    ((4, 5, 7), 1),
    ((4, 9, 7, 16), -1),
    ((4, 9, 7, 5), 3),
    ((4, 5, 9, 7), 1),
    ((4, 9, 5, 7), -2),
    ((2, 3, 4, 6, 5), -1),
    ((2, 5, 3, 4, 6), 1),
]
FEWER_WEIGHTS = [(False, True), (True, False), (False, False)]


@each_layer
@pytest.mark.parametrize(
    ("shape", "axis", "center", "scale"),
    [(*each, True, True) for each in SHAPES]
    + [(*each, *FEWER_WEIGHTS[i % 3]) for i, each in enumerate(SHAPES)],
)
def test_inference_equals_keras_bit_by_bit(make, shape, axis, center, scale):
    kwargs = {"axis": axis, "center": center, "scale": scale, "epsilon": 1e-5}
    ours, theirs = (
        model_of(cls(**kwargs), shape)
        for cls in (make, keras.layers.BatchNormalization)
    )
    x = draw(shape) * 10.0
    assert_array_equal(ours(x), theirs(x))
    assert_array_equal(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))


@each_layer
def test_it_stays_so_inside_a_network(make):
    shape = (3, 12, 12, 8)

    def network(cls):
        keras.utils.set_random_seed(1)
        inputs = keras.Input(shape[1:])
        x = keras.layers.Conv2D(16, 3, use_bias=False)(inputs)
        layer = cls()
        x = keras.layers.ReLU()(layer(x))
        set_weights(layer)
        return keras.Model(inputs, keras.layers.Conv2D(4, 3)(x))

    ours, theirs = network(make), network(keras.layers.BatchNormalization)
    x = draw(shape)
    assert_array_equal(ours.predict(x, verbose=0), theirs.predict(x, verbose=0))


def test_untrainable_layers_equal_keras_bit_for_bit_in_training():
    shape = (4, 9, 7, 5)
    ours, theirs = (
        model_of(cls(trainable=False), shape)
        for cls in (BatchNormalization, keras.layers.BatchNormalization)
    )
    x = draw(shape)
    assert_array_equal(ours(x, training=True), theirs(x, training=True))


@each_layer
def test_a_mask_of_another_rank_is_refused_at_inference(make):
    with pytest.raises(ValueError, match=r"mask.shape=\(4, 9\)"):
        make()(draw((4, 9, 7, 5)), mask=np.ones((4, 9), bool))


@pytest.mark.parametrize("trainable", [False, True])
def test_frozen_weights_are_not_trained(trainable):
    shape = (4, 9, 7, 5)
    layer = FrozenBatchNormalization(trainable=not trainable)
    model = model_of(layer, shape)
    layer.trainable = trainable
    names = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [v.name for v in layer.weights] == names
    assert [v.name for v in layer.non_trainable_weights] == names
    before = [to_numpy(v).copy() for v in layer.weights]
    x = draw(shape)
    expected = layer(x, training=False)
    assert_array_equal(layer(x, training=True), expected)

    prelu = keras.layers.PReLU(shared_axes=[1, 2])
    model = keras.Sequential([keras.Input(shape[1:]), model, prelu])
    model.compile("sgd", "mse")
    model.fit(x, np.zeros_like(x), epochs=2, verbose=0)
    for weight, value in zip(layer.weights, before, strict=True):
        assert_array_equal(weight, value)


def test_input_gradients_pass_through_a_frozen_layer():
    layer = FrozenBatchNormalization(moving_variance_initializer="ones")
    layer.build((None, 3))
    upstream = draw((2, 3))
    _, to_x, to_weights = value_and_gradients(
        layer, draw((2, 3), 1), upstream, training=True
    )
    np.testing.assert_allclose(to_x, upstream / np.sqrt(1.001), rtol=1e-6)
    assert not to_weights


def test_the_frozen_takes_the_weights_of_batch_normalization():
    shape = (4, 9, 7, 5)
    source = BatchNormalization()
    model = model_of(source, shape)
    frozen = FrozenBatchNormalization()
    frozen.build(shape)
    frozen.set_weights(source.get_weights())
    assert_array_equal(frozen(draw(shape)), model(draw(shape)))


@pytest.mark.parametrize(
    "option", ["momentum", "gamma_regularizer", "beta_constraint", "renorm"]
)
def test_the_frozen_layer_rejects_training_arguments(option):
    with pytest.raises(ValueError, match=option):
        FrozenBatchNormalization(**{option: None})
