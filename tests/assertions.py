"""NumPy's assertions for tensors and variables of any backend."""

import keras
import numpy as np


def to_numpy(x):
    return keras.ops.convert_to_numpy(x)


def assert_allclose(actual, expected, rtol=1e-6, atol=0.0):
    np.testing.assert_allclose(
        to_numpy(actual), to_numpy(expected), rtol=rtol, atol=atol
    )


def assert_close(actual, expected, rtol=1e-5):
    """Relative to each value, and to the largest where they cancel."""
    assert_allclose(actual, expected, rtol, rtol * np.abs(expected).max())


def assert_array_equal(actual, expected):
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))
