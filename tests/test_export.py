"""SavedModel export of every layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.layers.members import MEMBERS


@pytest.mark.parametrize("name", MEMBERS)
def test_saved_model_gives_the_same_numbers(name, tmp_path):
    inputs = keras.Input((None, None, 3))
    layer = MEMBERS[name].build((None, None, None, 3))
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype("float32")
    unknown_sizes = tf.TensorSpec((None, None, None, 3))
    expected = tf.function(model, input_signature=[unknown_sizes])(x)
    model.export(tmp_path / "saved", verbose=False)
    exported = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_array_equal(exported.serve(x), expected)
    # Compiled, sums add up in another order.
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6
    )
