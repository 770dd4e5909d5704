"""Least squares and ridge regression against NumPy's solvers."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_norm.calibration.channel_fit import ChannelFit
from keras_norm.calibration.linear_layers import LinearForm
from keras_norm.calibration.linear_layers import is_refittable
from keras_norm.calibration.ridge import RidgeFit

RNG = np.random.default_rng(0)


def values(rows, channels, mean=0.0):
    return mean + RNG.normal(size=(rows, channels))


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_scale_and_offset_are_those_of_least_squares(mean):
    x, noise = values(500, 3, mean), values(500, 3)
    y = [2.0, -1.0, 0.5] * x + [1.0, 2.0, 3.0] + 0.3 * noise
    fit = ChannelFit(3)
    for start in range(0, 500, 70):
        fit.add(x[start : start + 70], y[start : start + 70])
    scale, offset = fit.solve()
    errors = []
    for i in range(3):
        matrix = np.stack([x[:, i] - mean, np.ones(500)], axis=1)
        (a, b), (error,), *_ = np.linalg.lstsq(matrix, y[:, i], rcond=None)
        np.testing.assert_allclose(scale[i], a, rtol=1e-7)
        np.testing.assert_allclose(offset[i], b - a * mean, rtol=1e-6)
        errors.append(error)
    explained = 1 - sum(errors) / (500 * y.var(axis=0).sum())
    np.testing.assert_allclose(
        fit.explained_variance(scale, offset), explained, atol=1e-6
    )


def test_fit_without_offset_goes_through_the_origin():
    x, y = values(50, 2, 1.0), values(50, 2, 3.0)
    fit = ChannelFit(2, fit_offset=False)
    fit.add(x, y)
    scale, offset = fit.solve()
    np.testing.assert_allclose(scale, (x * y).sum(0) / (x**2).sum(0))
    np.testing.assert_array_equal(offset, 0.0)


def test_fit_without_scale_shifts():
    x, y = values(50, 2), values(50, 2, 3.0)
    fit = ChannelFit(2, fit_scale=False)
    fit.add(x, y)
    scale, offset = fit.solve()
    np.testing.assert_array_equal(scale, 1.0)
    np.testing.assert_allclose(offset, y.mean(0) - x.mean(0))


def test_constant_channel_gets_the_mean_of_its_target():
    x, y = values(50, 2), values(50, 2, 3.0)
    x[:, 1] = 0.25
    fit = ChannelFit(2)
    fit.add(x, y)
    scale, offset = fit.solve()
    assert scale[1] == 0.0
    np.testing.assert_allclose(offset[1], y[:, 1].mean())


def test_rows_that_are_not_valid_do_not_count():
    x, y = values(50, 2), values(50, 2)
    valid = RNG.random(50) < 0.5
    fit, expected = ChannelFit(2), ChannelFit(2)
    spoiled = np.where(valid[:, None], x, np.nan)
    fit.add(spoiled, y, valid)
    expected.add(x[valid], y[valid])
    np.testing.assert_array_equal(fit.solve(), expected.solve())


@pytest.mark.parametrize("has_bias", [True, False])
def test_ridge_minimizes_its_loss(has_bias):
    rows, start = values(60, 4)[None], RNG.normal(size=(1, 4, 3))
    targets, bias = values(60, 3)[None], RNG.normal(size=(1, 3))
    fit = RidgeFit(start, bias if has_bias else None)
    fit.add(rows[:, :25], targets[:, :25])
    fit.add(rows[:, 25:], targets[:, 25:])
    strength = 0.3
    kernel, new_bias = fit.solve(strength)
    p = rows[0] - (rows[0].mean(0) if has_bias else 0)
    t = targets[0] - (targets[0].mean(0) if has_bias else 0)
    penalty = np.sqrt(strength * np.trace(p.T @ p) / 4) * np.eye(4)
    expected = np.linalg.lstsq(
        np.concatenate([p, penalty]),
        np.concatenate([t, penalty @ start[0]]),
        rcond=None,
    )[0]
    np.testing.assert_allclose(kernel[0], expected, rtol=1e-9, atol=1e-12)
    if has_bias:
        mean = targets[0].mean(0) - rows[0].mean(0) @ expected
        np.testing.assert_allclose(new_bias[0], mean, rtol=1e-9)
    else:
        assert new_bias is None


LAYERS = {
    "grouped": (layers.Conv2D(6, 3, 2, padding="same", groups=2), (7, 8, 4)),
    "dilated": (
        layers.Conv2D(5, (3, 2), dilation_rate=2, padding="same"),
        (9, 8, 4),
    ),
    "causal": (
        layers.Conv1D(5, 4, padding="causal", dilation_rate=2),
        (9, 4),
    ),
    "3d": (layers.Conv3D(3, 2, strides=(1, 2, 1)), (5, 6, 4, 3)),
    "depthwise": (
        layers.DepthwiseConv2D(3, 2, padding="same", depth_multiplier=2),
        (9, 8, 4),
    ),
    "depthwise_1d": (layers.DepthwiseConv1D(3), (9, 4)),
    "dense": (layers.Dense(5, use_bias=False), (9, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_kernel_are_the_outputs(name):
    layer, shape = LAYERS[name]
    x = RNG.normal(size=(2, *shape)).astype("float32")
    layer.build(x.shape)
    for variable in layer.variables:
        variable.assign(RNG.normal(size=variable.shape))
    outputs = keras.ops.convert_to_numpy(layer(x))
    assert is_refittable(layer)
    form = LinearForm(layer)
    kernel, bias = form.weights()
    product = form.rows(x) @ kernel
    if bias is not None:
        product += bias[:, None]
    product = product.transpose(1, 0, 2).reshape(outputs.shape)
    np.testing.assert_allclose(product, outputs, rtol=1e-4, atol=1e-5)
    chosen = form.rows(x, lambda number: np.array([number - 1, 0]))
    np.testing.assert_array_equal(chosen, form.rows(x)[:, [-1, 0]])
    before = layer.get_weights()
    form.assign(kernel, bias)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_kernels_with_constraints_and_overridden_calls_stay():
    class Scaled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    class Named(layers.Dense):
        """Inherits `call`."""

    assert not is_refittable(layers.Dense(2, kernel_constraint="non_neg"))
    assert not is_refittable(Scaled(2))
    assert is_refittable(Named(2))
    assert not is_refittable(layers.Conv2DTranspose(2, 3))
