"""Fixtures of the tests of folding."""

import keras
import pytest


@pytest.fixture
def float64():
    """Builds models in float64, inputs included."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
