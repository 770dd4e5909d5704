"""Masks as Keras' layers make them, for any channel axis.

`Masking` and `Embedding` give a mask of the shape of their output without its
last axis, also where another axis has the channels.
"""

import keras
import numpy as np
import pytest

import keras_norm
from tests.assertions import assert_allclose
from tests.assertions import to_numpy


def draw(shape=(4, 3, 5, 2), seed=0):
    x = np.random.default_rng(seed).normal(2.0, 3.0, shape).astype("float32")
    x[:, 1, 3] = 0.0
    x[2, :, 1:] = 0.0
    return x


def moments(x):
    """Moments of axis 1, at positions whose last axis is not 0."""
    valid = np.broadcast_to((x != 0).any(-1, keepdims=True), x.shape)
    channels = [x[:, i][valid[:, i]].astype("float64") for i in range(3)]
    return [c.mean() for c in channels], [c.var() for c in channels]


@pytest.mark.parametrize("name", ["BatchNormalization", "RBN", "EvalNorm"])
def test_moments_under_a_mask_of_keras(name):
    x = draw()
    layer = getattr(keras_norm, name)(axis=1, momentum=0.0)
    masked = keras.layers.Masking()(x)
    layer(masked, training=True)
    mean, variance = moments(x)
    assert_allclose(layer.moving_mean, mean, rtol=1e-5, atol=1e-6)
    assert_allclose(layer.moving_variance, variance, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    keras.__version__.startswith("3.8."),
    reason="its mean with such a mask is not the mean of the valid values",
)
def test_outputs_are_those_of_keras():
    x = draw()
    outputs = [
        to_numpy(kind(axis=1)(keras.layers.Masking()(x), training=True))
        for kind in (
            keras.layers.BatchNormalization,
            keras_norm.BatchNormalization,
        )
    ]
    assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


def test_eval_norm_learns_from_valid_values_alone():
    x, y = draw(), draw()
    mask = (x != 0).any(-1)
    y[~np.broadcast_to(mask[..., None], y.shape)] = 100.0
    mixes = []
    for values in (x, y):
        layer = keras_norm.EvalNorm(axis=1, momentum=0.5)
        layer(values, training=True, mask=mask)
        mixes.append([float(layer.mean_mix), float(layer.variance_mix)])
    assert mixes[0] == pytest.approx(mixes[1], rel=1e-5)
    assert max(mixes[0]) > 0


@pytest.mark.parametrize("kwargs", [{}, {"learned_epsilon": "channel"}])
def test_frn_divides_by_valid_values(kwargs):
    x = draw()
    mask = (x != 0).any(-1)
    layer = keras_norm.FRN(axis=1, epsilon=1e-6, **kwargs)
    output = to_numpy(layer(x, mask=mask))
    valid = np.broadcast_to(mask[..., None], x.shape)
    square = np.where(valid, x.astype("float64") ** 2, 0)
    count = np.maximum(valid.sum((2, 3), keepdims=True), 1)
    epsilon = 1e-6 + (1e-4 if kwargs else 0)
    expected = x / np.sqrt(square.sum((2, 3), keepdims=True) / count + epsilon)
    assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        keras_norm.GroupNormalization(groups=1, axis=1),
        keras_norm.FRN(groups=1, axis=1),
        keras_norm.RBN(statistics="group", groups=1, axis=1),
    ],
    ids=["gn", "gfrn", "rbn_group"],
)
def test_groups_reject_masks_with_different_channels(layer):
    with pytest.raises(ValueError, match="differs between channels"):
        layer(draw(), mask=(draw() != 0).any(-1))


@pytest.mark.parametrize("training", [False, True])
def test_masks_of_other_shapes_are_named(training):
    layer = keras_norm.BatchNormalization(axis=1)
    with pytest.raises(ValueError, match=r"mask.shape=\(4, 2, 2\)"):
        layer(draw(), mask=np.ones((4, 2, 2), bool), training=training)


def test_mask_without_the_channel_axis_comes_first():
    # Both forms fit: positions are meant.
    x = np.random.default_rng(0).normal(size=(2, 3, 3)).astype("float32")
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    layer = keras_norm.BatchNormalization(axis=1, momentum=0.0)
    layer(x, mask=mask, training=True)
    valid = [x[:, i][mask].astype("float64") for i in range(3)]
    expected = [v.mean() for v in valid]
    assert_allclose(layer.moving_mean, expected, rtol=1e-5, atol=1e-6)
