"""Small, large and shifted values, in every precision."""

import keras
import numpy as np
import pytest

from keras_norm import moments
from tests.assertions import assert_close
from tests.backend_gradients import value_and_gradients
from tests.layers.members import MEMBERS
from tests.layers.members import each_batch_member
from tests.layers.members import each_member
from tests.layers.members import weights_of

SHAPE = (4, 12, 14, 3)
HALF = ("bfloat16", "float16")

each_independent_normalizer = pytest.mark.parametrize(
    "name",
    [n for n, m in MEMBERS.items() if m.normalizes and not m.uses_batch],
)


def draw(mean=0.0, spread=1.0, shape=SHAPE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(mean, spread, shape).astype("float32")


def rounded(x, dtype):
    """`x` in a narrow dtype, and what that holds in float64."""
    narrow = keras.ops.cast(x, dtype)
    wide = keras.ops.convert_to_numpy(keras.ops.cast(narrow, "float32"))
    return narrow, wide.astype("float64")


@each_member
@pytest.mark.parametrize("size", [1e-30, 1e-12, 7e4])
def test_small_and_large_values(name, size):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    x = draw() * np.float32(size)
    expected = member.expected(x, weights_of(layer), training=True)
    output, to_x, to_weights = value_and_gradients(
        layer, x, draw(seed=1), training=True
    )
    assert_close(output, expected, 1e-5)
    assert np.isfinite(to_x).all()
    assert all(np.isfinite(g).all() for g in to_weights.values())


@each_batch_member
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_mean_of_a_thousand_spreads(name, dtype):
    member = MEMBERS[name]
    x, seen = rounded(draw(1e3, 1.0), dtype)
    layer = member.build(SHAPE, momentum=0.0)
    before = weights_of(layer)
    output = layer(x, training=True)
    assert_close(output, member.expected(seen, before, training=True), 1e-3)
    if "center_weight" not in before:
        after = weights_of(layer)
        assert_close(after["moving_variance"], seen.var((0, 1, 2)), 1e-5)


@each_independent_normalizer
def test_independent_layers_of_a_mean_of_a_thousand_spreads(name):
    member = MEMBERS[name]
    layer = member.build(SHAPE)
    x = draw(1e3, 1.0)
    assert_close(layer(x), member.expected(x, weights_of(layer)), 1e-3)


def planes_to_shift():
    """Planes whose first or middle rows say little of the others."""
    x = draw(0.0, 1.0, (6, 64, 8, 2))
    x[0] += 1e3
    x[1, 32] += 1e4
    x[2, 31:33] = 0.0
    x[3] += np.linspace(0.0, 1e4, 64, dtype="float32")[:, None, None]
    x[4] = 12345.678
    x[5, 0, 0] = 1e6
    return x


@pytest.mark.parametrize("axes", [(1, 2), (1,), (2, 3)])
def test_the_variance_of_any_plane_has_its_digits(axes):
    x = planes_to_shift()
    mean, variance, count = moments.plane_moments(
        keras.ops.convert_to_tensor(x), axes
    )
    wide = x.astype("float64")
    expected = wide.var(axes, keepdims=True)
    scale = np.abs(wide).max(axes, keepdims=True)
    error = np.abs(keras.ops.convert_to_numpy(variance) - expected)
    # Rounding of the values themselves, and of sums.
    assert (error <= 1e-4 * expected + (1e-6 * scale) ** 2).all()
    error = keras.ops.convert_to_numpy(mean) - wide.mean(axes, keepdims=True)
    assert (np.abs(error) <= 1e-6 * scale).all()
    size = np.prod([x.shape[axis] for axis in axes])
    assert (keras.ops.convert_to_numpy(count) == size).all()


def test_the_variance_of_equal_values_is_never_negative():
    levels = np.random.default_rng(0).uniform(-100.0, 100.0, (8, 1, 1, 128))
    x = np.broadcast_to(levels, (8, 1, 3000, 128)).astype("float32")
    _, variance, _ = moments.plane_moments(
        keras.ops.convert_to_tensor(x), (1, 2)
    )
    variance = keras.ops.convert_to_numpy(variance)
    assert variance.min() >= 0.0
    assert variance.max() < 1e-8


@each_independent_normalizer
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_sample_stays_alone_in_training(name, bad):
    layer = MEMBERS[name].build(SHAPE)
    x, upstream = draw(), draw(seed=1)
    clean = value_and_gradients(layer, x, upstream, training=True)
    x[0, 0, 0] = bad
    output, to_x, _ = value_and_gradients(layer, x, upstream, training=True)
    np.testing.assert_array_equal(output[1:], clean[0][1:])
    np.testing.assert_array_equal(to_x[1:], clean[1][1:])
    assert not np.isfinite(output[0]).all()


@each_member
@pytest.mark.parametrize("training", [False, True])
def test_a_batch_of_one(name, training):
    member = MEMBERS[name]
    layer = member.build((1, *SHAPE[1:]))
    x = draw(0.5, 2.0, (1, *SHAPE[1:]))
    expected = member.expected(x, weights_of(layer), training=training)
    assert_close(layer(x, training=training), expected, 1e-5)


@each_member
@pytest.mark.parametrize("dtype", HALF)
def test_a_float32_layer_takes_narrow_inputs(name, dtype):
    member = MEMBERS[name]
    layer = member.build(SHAPE, dtype="float32")
    x, seen = rounded(draw(0.5, 2.0), dtype)
    output = layer(x, training=True)
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    layer = member.build(SHAPE)
    expected = member.expected(seen, weights_of(layer), training=True)
    assert_close(output, expected, 1e-5)


@each_member
@pytest.mark.parametrize("dtype", HALF)
def test_gradients_in_half_precision(name, dtype):
    member = MEMBERS[name]
    _, seen = rounded(draw(0.5, 2.0), dtype)
    upstream = rounded(draw(seed=1), dtype)[1].astype("float32")
    x = seen.astype("float32")
    results = []
    for policy in ("float32", f"mixed_{dtype}"):
        layer = member.build(SHAPE, dtype=policy)
        _, to_x, to_weights = value_and_gradients(
            layer, x, upstream, training=True
        )
        results.append([to_x, *to_weights.values()])
    for exact, mixed in zip(*results, strict=True):
        assert_close(mixed.astype("float32"), exact, 1e-2)
