"""Models rebuilt in float32."""

import keras
import numpy as np

import keras_norm
from recipes.models import classifiers
from recipes.models import precision
from tests.recipes.export.small_exports import IMAGE
from tests.recipes.export.small_exports import make_images
from tests.recipes.export.small_exports import make_network
from tests.recipes.export.small_exports import randomize_weights


def test_nested_models_and_operations_become_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    inner_inputs = keras.Input((None, None, 4))
    inner = keras.Model(
        inner_inputs, keras_norm.FRN()(inner_inputs), name="bfloat16"
    )
    convolution = keras.layers.Conv2D(4, 3, padding="same")
    inputs = keras.Input((None, None, 4))
    x = inner(convolution(inputs)) + convolution(inputs)
    x = keras.ops.cast(x, "bfloat16") * 2.0
    x = keras.Sequential([keras_norm.TLU(), keras.layers.Flatten()])(x)
    model = randomize_weights(
        classifiers.with_float32_logits(keras.Model(inputs, x))
    )
    new = precision.rebuild_in_float32(model)
    assert new.get_layer("bfloat16").layers[1].compute_dtype == "float32"
    x = make_images(2, 3, 3, 4)
    expected = model(x).numpy()
    np.testing.assert_allclose(new(x), expected, atol=0.1)
    assert np.abs(new(x) - expected).max() > 0.0


def test_float32_model_keeps_its_outputs_bit_for_bit():
    model = make_network(keras_norm.names())
    x = make_images(2, *IMAGE)
    np.testing.assert_array_equal(
        precision.rebuild_in_float32(model)(x), model(x)
    )
