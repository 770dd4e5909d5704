import keras
import numpy as np
import pytest

from keras_norm import TLU
from tests.assertions import assert_allclose
from tests.assertions import assert_array_equal
from tests.assertions import to_numpy
from tests.backend_gradients import value_and_gradients


def test_a_new_tlu_is_a_relu():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    assert_array_equal(TLU()(x), np.maximum(x, 0.0))
    assert_array_equal(TLU(affine=True)(x), np.maximum(x, 0.0))


def test_it_is_a_shifted_relu():
    tau = keras.initializers.Constant(-0.75)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    expected = np.maximum(x + 0.75, 0.0) - 0.75
    assert_allclose(TLU(tau_initializer=tau)(x), expected, atol=1e-6)


def test_at_a_tie_the_gradient_goes_to_the_input():
    layer = TLU()
    layer.build((None, 3))
    x = np.array([[-1.0, 0.0, 2.0]], "float32")
    upstream = np.array([[5.0, 7.0, 11.0]], "float32")
    _, input_gradient, gradients = value_and_gradients(layer, x, upstream)
    assert_array_equal(input_gradient, [[0.0, 7.0, 11.0]])
    assert_array_equal(gradients["tau"], [5.0, 0.0, 0.0])


@pytest.mark.parametrize("affine", [False, True])
def test_a_new_capped_tlu_is_a_capped_relu(affine):
    x = np.random.default_rng(0).normal(0.0, 6.0, (2, 30, 4)).astype("float32")
    layer = TLU(affine=affine, max_value=6)
    assert_array_equal(layer(x), keras.ops.relu6(x))
    assert_array_equal(layer(x), keras.layers.ReLU(max_value=6)(x))


@pytest.mark.parametrize("affine", [False, True])
def test_above_the_cap_nothing_has_a_gradient(affine):
    layer = TLU(affine=affine, max_value=2.0, tau_initializer="ones")
    layer.build((None, 5))
    x = np.array([[-1.0, 1.0, 1.5, 2.0, 9.0]], "float32")
    upstream = np.array([[5.0, 7.0, 11.0, 13.0, 17.0]], "float32")
    output, to_x, to_weights = value_and_gradients(layer, x, upstream)
    assert_array_equal(output, [[1.0, 1.0, 1.5, 2.0, 2.0]])
    assert_array_equal(to_x, [[0.0, 7.0, 11.0, 13.0, 0.0]])
    assert_array_equal(to_weights["tau"], [5.0, 0.0, 0.0, 0.0, 0.0])


def test_a_threshold_above_the_cap_learns_nothing():
    layer = TLU(max_value=2.0, tau_initializer=keras.initializers.Constant(3.0))
    layer.build((None, 2))
    x = np.array([[-1.0, 9.0]], "float32")
    output, to_x, to_weights = value_and_gradients(layer, x, np.ones_like(x))
    assert_array_equal(output, [[2.0, 2.0]])
    assert_array_equal(to_x, [[0.0, 0.0]])
    assert_array_equal(to_weights["tau"], [0.0, 0.0])


@pytest.mark.parametrize("max_value", [-1, float("inf"), "6", True])
def test_a_bad_cap_is_named(max_value):
    with pytest.raises(ValueError, match=f"max_value={max_value!r}"):
        TLU(max_value=max_value)


@pytest.mark.parametrize(("max_value", "top"), [(None, np.inf), (6.0, 6.0)])
def test_nan_is_not_hidden_by_the_threshold(max_value, top):
    x = np.array([[np.nan, np.inf, -np.inf]], "float32")
    output = to_numpy(TLU(max_value=max_value)(x))
    assert_array_equal(output, [[np.nan, top, 0.0]])


def test_infinity_is_not_hidden_in_float16():
    x = np.array([[np.inf, 7e4, 1.0]], "float32")
    output = keras.ops.cast(TLU(dtype="mixed_float16")(x), "float32")
    assert_array_equal(output, [[np.inf, 65504.0, 1.0]])
