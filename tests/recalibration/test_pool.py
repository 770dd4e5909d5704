"""Tests of `keras_norm.pool`."""

import keras
import numpy as np
import pytest

import keras_norm

LAYERS = keras.layers


def network(cls=LAYERS.BatchNormalization, **kwargs):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            cls(name="input_norm", **kwargs),
            LAYERS.Conv2D(4, 3, name="conv"),
        ]
    )


def two_classes(generator):
    """Two halves with other means and spreads, of different sizes."""
    first = generator.normal(0.0, 1.0, size=(30, 6, 5, 3))
    second = generator.normal(4.0, 3.0, size=(50, 6, 5, 3))
    return first.astype("float32"), second.astype("float32")


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (LAYERS.BatchNormalization, {}),
        (keras_norm.BatchNormalization, {"renorm": True}),
        (keras_norm.RBN, {}),
    ],
)
def test_halves_equal_the_whole(cls, kwargs):
    model = network(cls, **kwargs)
    halves = two_classes(np.random.default_rng(0))
    parts = [keras_norm.recalibrate(model, half)[0] for half in halves]
    whole, _ = keras_norm.recalibrate(model, np.concatenate(halves))
    pooled = keras_norm.pool(parts, [30, 50])
    for got, expected in zip(
        pooled.get_weights(), whole.get_weights(), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    # A weighted mean of variances, without the distance of the means, differs.
    name = "input_norm"
    variances = [
        keras.ops.convert_to_numpy(m.get_layer(name).moving_variance)
        for m in (*parts, pooled)
    ]
    mean_of_variances = 0.375 * variances[0] + 0.625 * variances[1]
    assert np.all(variances[2] > mean_of_variances + 3)


def test_layer_by_layer_equals_the_whole_in_a_deep_network():
    inputs = keras.Input((6, 5, 3))
    x = LAYERS.BatchNormalization(name="first")(inputs)
    x = LAYERS.ReLU()(LAYERS.Conv2D(4, 3)(x))
    x = LAYERS.BatchNormalization(name="second")(x)
    model = keras.Model(inputs, x)
    halves = two_classes(np.random.default_rng(0))
    whole, _ = keras_norm.recalibrate(model, np.concatenate(halves))
    once = keras_norm.pool(
        [keras_norm.recalibrate(model, half)[0] for half in halves], [30, 50]
    )
    for name in ("first", "second"):
        model = keras_norm.pool(
            [
                keras_norm.recalibrate(model, half, include=name)[0]
                for half in halves
            ],
            [30, 50],
        )

    def second(pooled):
        variance = pooled.get_layer("second").moving_variance
        return keras.ops.convert_to_numpy(variance)

    np.testing.assert_allclose(second(model), second(whole), rtol=1e-5)
    # Pooled once, later layers saw other inputs.
    assert np.max(np.abs(second(once) / second(whole) - 1)) > 1e-2


def test_other_weights_are_equal_or_averaged():
    models = [network() for _ in range(2)]
    kernels = [np.full((3, 3, 3, 4), value, "float32") for value in (1.0, 5.0)]
    for model, kernel in zip(models, kernels, strict=True):
        model.get_layer("conv").kernel.assign(kernel)
    with pytest.raises(
        keras_norm.ConversionError, match="conv/kernel.*average"
    ):
        keras_norm.pool(models, [3, 1])
    pooled = keras_norm.pool(models, [3, 1], average_weights=True)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(pooled.get_layer("conv").kernel), 2.0
    )


def test_eval_norm_mixing_is_averaged():
    models = [network(keras_norm.EvalNorm) for _ in range(2)]
    for model, value in zip(models, (0.2, 0.6), strict=True):
        model.get_layer("input_norm").mean_mix.assign(value)
    pooled = keras_norm.pool(models, [1, 1])
    mix = pooled.get_layer("input_norm").mean_mix
    assert float(keras.ops.convert_to_numpy(mix)) == pytest.approx(0.4)


def test_one_line_errors():
    model = network()
    other = keras.Sequential(
        [keras.Input((6, 5, 3)), LAYERS.BatchNormalization()]
    )
    plain = keras.Sequential([keras.Input((3,)), LAYERS.Dense(2)])
    broken = network()
    broken.get_layer("input_norm").moving_mean.assign([0.0, np.nan, 0.0])
    for models, counts, message in (
        ([model, other], [1, 1], "same layers"),
        ([model, model], [1], "2 models"),
        ([model, model], [0, 0], "counts"),
        ([model, model], [-1, 2], "counts"),
        ([], [], "0 models"),
        ([plain], [1], "no batch normalization"),
        ([model, broken], [1, 1], "'input_norm' are not valid"),
    ):
        with pytest.raises(keras_norm.ConversionError, match=message) as error:
            keras_norm.pool(models, counts)
        assert "\n" not in str(error.value)
