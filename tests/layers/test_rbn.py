import keras
import numpy as np
import pytest

from keras_norm import RBN
from keras_norm import BatchNormalization
from tests.assertions import assert_allclose
from tests.assertions import to_numpy


def draw(shape=(4, 5, 7, 3), seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(1.5, 2.0, shape).astype("float32")


def constant(value):
    return keras.initializers.Constant(value)


def test_a_new_rbn_is_a_new_batch_norm_times_sigmoid_1():
    sigmoid_1 = 1.0 / (1.0 + np.exp(-1.0))
    expected = sigmoid_1 * to_numpy(BatchNormalization()(draw(), training=True))
    output = RBN()(draw(), training=True)
    assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_a_center_weight_of_minus_1_centers_every_plane():
    layer = RBN(center_weight_initializer=constant(-1.0))
    output = to_numpy(layer(draw(), training=True))
    assert_allclose(output.mean((1, 2)), 0.0, atol=1e-6)


def test_the_moving_moments_are_those_of_the_centered_features():
    layer = RBN(momentum=0.0, center_weight_initializer=constant(0.5))
    x = draw()
    layer(x, training=True)
    centered = x + 0.5 * x.mean((1, 2), keepdims=True)
    assert_allclose(layer.moving_mean, centered.mean((0, 1, 2)), rtol=1e-5)
    assert_allclose(layer.moving_variance, centered.var((0, 1, 2)), rtol=1e-5)


def test_start_values():
    layer = RBN()
    layer.build((None, 4, 4, 2))
    values = {v.name: to_numpy(v).tolist() for v in layer.weights}
    assert values == {
        "gamma": [1.0, 1.0],
        "beta": [0.0, 0.0],
        "moving_mean": [0.0, 0.0],
        "moving_variance": [1.0, 1.0],
        "center_weight": [0.0, 0.0],
        "scale_weight": [0.0, 0.0],
        "scale_bias": [1.0, 1.0],
    }


def test_a_disabled_calibration_has_no_weights():
    layer = RBN(center_statistic=None, scale_statistic=None)
    layer.build((None, 4, 4, 2))
    assert [v.name for v in layer.trainable_weights] == ["gamma", "beta"]


def test_the_restriction_is_an_argument():
    layer = RBN(restriction=lambda x: 0.25 + 0.0 * x)
    expected = 0.25 * to_numpy(BatchNormalization()(draw(), training=True))
    assert_allclose(
        layer(draw(), training=True), expected, rtol=1e-5, atol=1e-6
    )
    assert RBN(restriction="hard_sigmoid").get_config()["restriction"] == (
        "hard_sigmoid"
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"center_statistic": "median"},
        {"scale_statistic": 3},
        {"restriction": "squash"},
    ],
)
def test_a_bad_choice_is_named(bad):
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        RBN(**bad)


def test_a_mask_with_a_function_is_refused():
    layer = RBN(center_statistic=keras.ops.max)
    with pytest.raises(ValueError, match="takes no mask"):
        layer(draw(), mask=np.ones((4, 5, 7), bool))
