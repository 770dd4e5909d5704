import keras
import numpy as np
import pytest

from keras_norm._xla_cpu import materialize
from keras_norm._xla_cpu import plane_sums
from tests.backend_gradients import BACKEND
from tests.backend_gradients import MODES


def run(function, *arrays, mode):
    """The results of a function of tensors in one of the backend's modes."""
    tensors = [keras.ops.convert_to_tensor(a) for a in arrays]
    if mode == "xla" and BACKEND == "jax":
        import jax

        function = jax.jit(function)
    elif mode != "eager":
        import tensorflow as tf

        function = tf.function(function, jit_compile=mode == "xla")
    return [keras.ops.convert_to_numpy(r) for r in function(*tensors)]


def terms(x, y):
    return [x, x * y, y * y]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_terms", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3), ()),
        ((2, 1, 3), (1,)),
        ((2, 5, 3), (1,)),
        ((2, 97, 3), (1,)),
        ((2, 7, 7, 3), (1, 2)),
        ((2, 17, 4, 3), (1, 2)),
        ((2, 3, 4, 30), (2, 3)),
        ((2, 5, 3, 6), (1, 3)),
        ((2, 3, 4, 5, 6), (1, 2, 3)),
    ],
)
def test_they_are_sums(shape, axes, num_terms, mode):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, *shape)).astype("float32")
    sums = run(
        lambda x, y: plane_sums(
            lambda x, y: terms(x, y)[:num_terms], [x, y], axes
        ),
        x,
        y,
        mode=mode,
    )
    wide = terms(x.astype("float64"), y.astype("float64"))[:num_terms]
    for result, value in zip(sums, wide, strict=True):
        expected = value.sum(axes, keepdims=True) if axes else value
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "size", [1, 2, 3, 7, 8, 13, 14, 15, 16, 17, 27, 29, 40]
)
def test_no_position_is_left_out_or_counted_twice(size, mode):
    # Powers of two: a sum that is right has every bit.
    x = 2.0 ** (np.arange(size, dtype="float64") % 50)
    x = np.tile(x[None, :, None, None], (1, 1, 16, 2))
    (total,) = run(
        lambda x: plane_sums(lambda x: [x], [x], (1, 2)), x, mode=mode
    )
    assert total.dtype == np.float64
    np.testing.assert_array_equal(total[0, 0, 0], x.sum((1, 2))[0])


@pytest.mark.parametrize("mode", MODES)
def test_a_tensor_of_one_channel_goes_with_all(mode):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 9, 8, 3)).astype("float32")
    y = generator.normal(size=(2, 9, 8, 1)).astype("float32")
    (total,) = run(
        lambda x, y: plane_sums(lambda x, y: [x * y], [x, y], (1, 2)),
        x,
        y,
        mode=mode,
    )
    expected = (x * y).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_stored_moments_are_equal_bit_for_bit(mode):
    planes = np.array([1e-30, np.inf, -3.5, np.nan], "float32")
    planes = planes.reshape(2, 1, 1, 2)
    (result,) = run(lambda p: materialize([p]), planes, mode=mode)
    np.testing.assert_array_equal(result, planes)
