import keras
import numpy as np
import pytest

from keras_norm.layers.no_norm import NoNormalization
from tests.assertions import assert_array_equal


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5, 3)])
def test_output_equals_input(shape):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = NoNormalization(axis=1)
    mask = np.ones(shape[:-1], bool)
    for kwargs in ({}, {"training": True}, {"mask": mask}):
        assert_array_equal(layer(x, **kwargs), x)
    assert not layer.variables


def test_it_has_the_dtype_of_its_policy_and_reloads():
    layer = NoNormalization(dtype="mixed_bfloat16", name="none")
    assert (
        layer(np.ones((2, 3), "float32")).dtype
        == keras.ops.ones(1, "bfloat16").dtype
    )
    again = NoNormalization.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
