"""Checks that Keras makes of BatchNormalization, on these layers."""

import keras
import numpy as np
import pytest

from keras_norm import RBN
from keras_norm import BatchNormalization
from keras_norm import EvalNorm
from tests.assertions import assert_allclose
from tests.assertions import to_numpy


def rbn_without_calibration(**kwargs):
    return RBN(center_statistic=None, scale_statistic=None, **kwargs)


def fixed_eval_norm(**kwargs):
    return EvalNorm(mix_learning_rate=0.0, **kwargs)


each_peer = pytest.mark.parametrize(
    "make", [BatchNormalization, rbn_without_calibration, fixed_eval_norm]
)


def draw(shape, mean=10.0, spread=5.0, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(mean, spread, shape).astype("float32")


@each_peer
@pytest.mark.parametrize(
    ("kwargs", "num_trainable"),
    [
        ({}, 2),
        ({"center": False}, 1),
        ({"scale": False}, 1),
        ({"center": False, "scale": False}, 0),
        ({"gamma_regularizer": "l2", "beta_regularizer": "l2"}, 2),
        ({"gamma_constraint": "non_neg", "beta_constraint": "non_neg"}, 2),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3), (5, 2, 3), (2, 3, 4, 4)])
def test_weights_losses_and_shapes(make, kwargs, num_trainable, shape):
    layer = make(**kwargs)
    output = layer(draw(shape), training=True)
    assert tuple(output.shape) == shape
    assert len(layer.trainable_weights) == num_trainable
    others = {w.name for w in layer.non_trainable_weights}
    assert others >= {"moving_mean", "moving_variance"}
    num_losses = sum("regularizer" in key for key in kwargs)
    assert len(layer.losses) == num_losses
    assert tuple(layer.compute_output_shape(shape)) == shape


@each_peer
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("shape", [(5, 3), (5, 4, 3), (5, 4, 6, 3)])
@pytest.mark.parametrize("start", ["zeros", "ones"])
def test_it_normalizes_after_training_on_the_same_batch(
    make, axis, shape, start
):
    if axis == 1:
        shape = (shape[0], shape[-1], *shape[1:-1])
    layer = make(
        axis=axis,
        momentum=0.3,
        epsilon=1e-5,
        moving_mean_initializer=start,
        moving_variance_initializer=start,
    )
    x = draw(shape)
    for _ in range(12):
        trained = layer(x, training=True)
    reduced = tuple(i for i in range(len(shape)) if i != axis % len(shape))
    for output in (trained, layer(x, training=False)):
        output = to_numpy(output)
        assert_allclose(output.mean(reduced), 0.0, atol=1e-4)
        assert_allclose(output.std(reduced), 1.0, rtol=1e-3)


@each_peer
def test_untrainable_layers_use_inference_mode(make):
    layer = make(momentum=0.3, epsilon=1e-7)
    layer.build((4, 5, 3))
    x = draw((4, 5, 3))
    layer.trainable = False
    assert not layer.trainable_weights
    assert_allclose(layer(x, training=True), x, rtol=1e-5)
    layer.trainable = True
    assert len(layer.trainable_weights) == 2
    for _ in range(15):
        layer(x, training=True)
    output = to_numpy(layer(x, training=True))
    assert_allclose(output.mean((0, 1)), 0.0, atol=1e-4)
    assert_allclose(layer(x, training=False), output, rtol=1e-3, atol=1e-4)


@each_peer
def test_a_fully_masked_batch(make):
    layer = make(center=False, scale=False)
    x = np.zeros((4, 5), "float32")
    output = layer(x, mask=np.zeros((4,), bool), training=True)
    assert_allclose(output, x)


@each_peer
def test_a_mask_of_length_1_stands_for_every_position(make):
    x = draw((2, 4, 3, 5))
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], bool)[..., None]
    short, full = make(momentum=0.0), make(momentum=0.0)
    output = short(x, mask=mask, training=True)
    expected = full(x, mask=np.repeat(mask, 3, -1), training=True)
    assert_allclose(output, to_numpy(expected), rtol=1e-6)
    assert_allclose(short.moving_mean, x[mask[..., 0]].mean((0, 1)), rtol=1e-5)


@each_peer
def test_a_mask_of_ones_has_no_effect(make):
    x = draw((2, 4, 3, 5))
    masked, plain = make(), make()
    output = masked(x, mask=np.ones((2, 4, 3), bool), training=True)
    expected = to_numpy(plain(x, training=True))
    assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@each_peer
def test_the_mask_of_padded_sequences_reaches_it(make):
    tokens = np.array([[3, 5, 0, 0], [1, 2, 4, 0]])
    embed = keras.layers.Embedding(6, 4, mask_zero=True)
    layer = make(momentum=0.0)
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, layer(embed(inputs)))
    model(tokens, training=True)
    kept = to_numpy(embed(tokens))[tokens != 0]
    assert_allclose(layer.moving_mean, kept.mean(0), rtol=1e-4, atol=1e-6)
    assert_allclose(layer.moving_variance, kept.var(0), rtol=1e-3)


@each_peer
def test_values_whose_squares_overflow_float16(make):
    layer = make(dtype="mixed_float16", momentum=0.0)
    x = np.array([[60000.0, 8.0], [-60000.0, 2.0]], "float32")
    output = keras.ops.cast(layer(x, training=True), "float32")
    assert_allclose(output, [[1.0, 1.0], [-1.0, -1.0]], rtol=1e-3)
    assert_allclose(layer.moving_variance, [3.6e9, 9.0], rtol=1e-5)


@each_peer
def test_a_regularizer_of_gamma_is_in_the_gradient_of_fit(make):
    layer = make(gamma_regularizer=keras.regularizers.L2(0.1))
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    zeros = np.zeros((4, 3), "float32")
    model.fit(zeros, zeros, epochs=1, verbose=0)
    assert_allclose(layer.gamma, np.full(3, 0.8), rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_renorm_equals_batch_normalization_once_settled(axis):
    x = draw((16, 4, 4, 4))
    layer = BatchNormalization(
        axis=axis, renorm=True, momentum=0.5, renorm_momentum=0.5
    )
    plain = BatchNormalization(axis=axis)
    for _ in range(20):
        output = layer(x, training=True)
    expected = to_numpy(plain(x, training=True))
    assert_allclose(output, expected, rtol=1e-3, atol=1e-3)


def test_rbn_over_renormalized_moments_is_calibrated_renorm():
    kwargs = {
        "renorm": True,
        "renorm_clipping": {"rmax": 1.5, "rmin": 0.6, "dmax": 0.5},
        "momentum": 0.7,
    }
    calibrated, plain = RBN(**kwargs), BatchNormalization(**kwargs)
    sigmoid_1 = 1.0 / (1.0 + np.exp(-1.0))
    for seed in range(3):
        x = draw((4, 5, 6, 3), seed=seed)
        expected = sigmoid_1 * to_numpy(plain(x, training=True))
        output = calibrated(x, training=True)
        assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    names = {w.name for w in calibrated.non_trainable_weights}
    assert names == {w.name for w in plain.non_trainable_weights}


@pytest.mark.parametrize(
    ("statistics", "groups"), [("instance", -1), ("group", 2), ("group", 1)]
)
def test_rbn_over_groups_is_calibrated_group_normalization(statistics, groups):
    x = draw((4, 5, 6, 4))
    calibrated = RBN(
        statistics=statistics,
        groups=groups if statistics == "group" else None,
        center_statistic=None,
        scale_statistic=None,
    )
    theirs = keras.layers.GroupNormalization(groups=groups)
    expected = to_numpy(theirs(x))
    for training in (False, True):
        output = calibrated(x, training=training)
        assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    assert not calibrated.non_trainable_weights
