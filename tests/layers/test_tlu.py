import keras
import numpy as np

from keras_norm import TLU
from tests.gradient import value_and_gradients
from tests.numbers import assert_allclose
from tests.numbers import assert_array_equal
from tests.numbers import to_numpy


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


def test_nan_is_not_hidden_by_the_threshold():
    x = np.array([[np.nan, np.inf, -np.inf]], "float32")
    output = to_numpy(TLU()(x))
    assert_array_equal(output, [[np.nan, np.inf, 0.0]])


def test_infinity_is_not_hidden_in_float16():
    x = np.array([[np.inf, 7e4, 1.0]], "float32")
    output = keras.ops.cast(TLU(dtype="mixed_float16")(x), "float32")
    assert_array_equal(output, [[np.inf, 65504.0, 1.0]])
