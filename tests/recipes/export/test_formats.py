"""Every export format gives the outputs of the Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_norm
from recipes.export import formats
from recipes.models import classifiers
from tests.recipes.export.small_exports import IMAGE
from tests.recipes.export.small_exports import export_model
from tests.recipes.export.small_exports import make_images
from tests.recipes.export.small_exports import make_network
from tests.recipes.export.small_exports import randomize_weights
from tests.recipes.export.small_exports import require_format
from tests.recipes.export.small_exports import run_export

FORMATS = [require_format(name) for name in formats.FORMATS]
each_format = pytest.mark.parametrize("name", FORMATS)
onnx_only = pytest.mark.parametrize("name", [require_format("onnx")])


@each_format
def test_every_norm_is_exported_with_unknown_sizes(name, tmp_path):
    model = make_network(keras_norm.names(), (None, None, 3))
    facts = export_model(model, name, tmp_path)
    assert facts["largest_difference"] < 1e-5
    assert facts["input_shape"] == [None, None, None, 3]
    for shape in [(4, 8, 8, 3), (2, 12, 9, 3)]:
        x = make_images(*shape)
        np.testing.assert_allclose(
            run_export(name, tmp_path, x), model(x), rtol=1e-4, atol=1e-5
        )


@pytest.mark.long
@each_format
@pytest.mark.parametrize("norm", keras_norm.names())
def test_every_norm_is_exported_in_a_residual_network(norm, name, tmp_path):
    shape = (16, 16, 3)
    model = classifiers.make_classifier(
        "resnet8_cifar", keras_norm.get(norm), shape, 10
    )
    facts = export_model(randomize_weights(model), name, tmp_path)
    assert facts["largest_difference"] < 1e-5


@pytest.mark.long
@each_format
@pytest.mark.parametrize(
    "network_name",
    ["ResNet50V2", "MobileNetV2", "EfficientNetB0", "DenseNet121"],
)
def test_applications_with_frn_are_exported(network_name, name, tmp_path):
    shape = (64, 64, 3)
    model = classifiers.make_classifier(
        network_name, keras_norm.get("frn"), shape, 10
    )
    facts = export_model(randomize_weights(model), name, tmp_path)
    assert facts["largest_difference"] <= facts["allowed_difference"]


@pytest.mark.parametrize("name", [require_format("litert")])
def test_model_of_two_replicas_is_exported(name, tmp_path):
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        model = make_network(["rbn"])
    assert export_model(model, name, tmp_path)["largest_difference"] < 1e-5


# ONNX Runtime moves zeros that a pad writes into the max pool behind it.
@onnx_only
def test_zero_padding_before_max_pools_is_kept(name, tmp_path):
    inputs = keras.Input(IMAGE)
    below_zero = keras.initializers.Constant(-5.0)
    x = keras.layers.Conv2D(4, 3, bias_initializer=below_zero)(inputs)
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.MaxPooling2D(3, strides=2)(x)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 1)(x))
    facts = export_model(keras.Model(inputs, x), name, tmp_path)
    assert facts["largest_difference"] < 1e-5


# tf2onnx makes reshapes of their transposes, by shapes that it moved twice.
@onnx_only
@pytest.mark.parametrize("norm", ["frn", "gn", "rbn"])
def test_1x1_maps_keep_their_channels(norm, name, tmp_path):
    inputs = keras.Input((1, 1, 3))
    x = keras.layers.Conv2D(4, 1)(inputs)
    layer = keras_norm.get(norm).layer(
        **({"groups": 2} if norm == "gn" else {})
    )
    model = randomize_weights(
        keras.Model(inputs, keras.layers.Flatten()(layer(x)))
    )
    facts = export_model(model, name, tmp_path)
    assert facts["largest_difference"] < 1e-5


# Keras' own export makes inputs of them.
@onnx_only
def test_constant_tensors_of_layers_are_stored_in_the_file(name, tmp_path):
    inputs = keras.Input(IMAGE)
    normalization = keras.layers.Normalization(
        mean=[0.1, 0.2, 0.3], variance=[0.4, 0.5, 0.6]
    )
    model = keras.Model(inputs, keras.layers.Flatten()(normalization(inputs)))
    assert export_model(model, name, tmp_path)["largest_difference"] < 1e-5
