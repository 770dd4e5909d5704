import collections

import keras
import numpy as np
import pytest

import keras_norm
from recipes.errors import RecipeError
from recipes.models import classifiers
from recipes.models import norms
from tests.recipes.small_runs import make_config

SHAPE = (32, 32, 3)


def count_operations(model):
    return collections.Counter(
        type(operation).__name__ for operation in model._operations
    )


def make_network(name, norm="frn", shape=SHAPE, **kwargs):
    return classifiers.make_classifier(
        name, keras_norm.get(norm, **kwargs), shape, 10
    )


@pytest.mark.parametrize("norm", keras_norm.names())
def test_every_norm_builds_a_network(norm):
    model = make_network("resnet8_cifar", norm)
    logits = model(np.zeros((2, *SHAPE), "float32"), training=True)
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    assert count_operations(model)["BatchNormalization"] == (
        9 if norm in ("bn", "sync_bn", "brn") else 0
    )


@pytest.mark.parametrize("depth", classifiers.CIFAR_DEPTHS)
def test_cifar_resnet_has_its_depth(depth):
    model = make_network(f"resnet{depth}_cifar")
    counts = count_operations(model)
    shortcuts = 2
    assert counts["Conv2D"] + counts["Dense"] - shortcuts == depth
    # Every addition has an activation, and every norm except at the end of a
    # branch.
    blocks = (depth - 2) // 2
    assert counts["FRN"] == counts["Conv2D"]
    assert counts["TLU"] == counts["FRN"] - shortcuts
    assert counts["Add"] == blocks
    assert counts["ReLU"] == 0


def test_end_of_a_branch_has_no_activation():
    model = make_network("resnet8_cifar")
    for block in (1, 2, 3):
        add = model.get_layer(f"stage{block}_block1_add")
        producers = [x._keras_history.operation for x in add.input]
        assert not any(isinstance(p, keras_norm.TLU) for p in producers[1:])
        follower = model.get_layer(f"stage{block}_block1_out")
        assert isinstance(follower, keras_norm.TLU)


def test_dense_layers_of_vgg_learn_epsilon():
    model = make_network("vgg_a")
    dense = [model.get_layer(f"dense{i}_norm") for i in (1, 2)]
    assert all(layer.learned_epsilon is not None for layer in dense)
    assert model.get_layer("conv2_1_act").tau.shape == (128,)


# Measured with Keras 3.15: every BN becomes FRN, every ReLU after a BN or an
# addition becomes TLU, and any other activation stays.
@pytest.mark.parametrize(
    ("name", "num_norms", "num_thresholds"),
    [
        ("ResNet50V2", 49, 49),
        ("ResNet50", 53, 49),
        ("InceptionV3", 94, 94),
        ("MobileNetV2", 52, 0),
    ],
)
def test_applications_are_built_with_the_norm(name, num_norms, num_thresholds):
    counts = count_operations(make_network(name, shape=(96, 96, 3)))
    assert counts["FRN"] == num_norms
    assert counts["TLU"] == num_thresholds
    assert counts["BatchNormalization"] == 0
    if name == "MobileNetV2":
        assert counts["ReLU"] == 35


@pytest.mark.parametrize(
    ("norm", "activation", "num_thresholds"),
    [
        ("frn", "relu", 0),
        ("frn", "tlu", 7),
        ("bn", "tlu", 7),
        ("bn", "relu", 0),
    ],
)
def test_activation_can_be_chosen(norm, activation, num_thresholds):
    chosen = keras_norm.get(norm).with_activation(activation)
    counts = count_operations(
        classifiers.make_classifier("resnet8_cifar", chosen, SHAPE, 10)
    )
    assert counts["TLU"] == num_thresholds
    assert counts["ReLU"] == 7 - num_thresholds
    layer = {"frn": "FRN", "bn": "BatchNormalization"}[norm]
    assert counts[layer] == 9


@pytest.mark.parametrize(
    ("norm", "activation", "num_thresholds"),
    [("frn", "relu", 0), ("bn", "tlu", 49)],
)
def test_activation_of_applications_can_be_chosen(
    norm, activation, num_thresholds
):
    chosen = keras_norm.get(norm).with_activation(activation)
    model = classifiers.make_classifier("ResNet50V2", chosen, (64, 64, 3), 10)
    counts = count_operations(model)
    assert counts["TLU"] == num_thresholds
    # Its other activations are Activation layers.
    assert (counts["Activation"] > 40) == (activation == "relu")
    assert counts["FRN"] == (49 if norm == "frn" else 0)


def test_vgg_widths_are_divided():
    by8, by512 = make_network("vgg_a_by8"), make_network("vgg_a_by512")
    whole = make_network("vgg_a")
    # Without the input layer, whose name has a counter.
    names = [layer.name for layer in whole.layers[1:]]
    assert [layer.name for layer in by8.layers[1:]] == names
    for name in names:
        if name.startswith("conv") and name[-2] == "_":
            filters = whole.get_layer(name).filters
            assert by8.get_layer(name).filters == filters // 8
            # At least one filter is left.
            assert by512.get_layer(name).filters == max(filters // 512, 1)
    assert [by8.get_layer(f"dense{i}").units for i in (1, 2)] == [512, 512]
    assert by8.get_layer("conv5_2").filters == 64
    assert by8.output_shape == (None, 10)
    assert count_operations(by8) == count_operations(whole)


@pytest.mark.parametrize("name", ["vgg_a_by0", "vgg_a_by", "vgg_a_by-8"])
def test_invalid_vgg_divisor_is_an_unknown_model(name):
    with pytest.raises(RecipeError, match=f"unknown model '{name}'.*vgg_a"):
        make_network(name)


def test_vgg_needs_images_of_32_pixels():
    with pytest.raises(RecipeError, match="at least 32x32 pixels"):
        make_network("vgg_a_by8", shape=(28, 28, 1))


def test_network_uses_default_arguments_of_the_norm():
    layer = make_network("ResNet50", "rbn").get_layer("conv1_bn")
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    np.testing.assert_array_equal(layer.gamma, 1.0)


def test_logits_are_float32_with_every_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = make_network("resnet8_cifar")
    assert model.output.dtype == "float32"
    assert model.get_layer("stem").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("name", "norm", "message"),
    [
        ("resnet18_cifar", "frn", "Did you mean 'resnet8_cifar'"),
        ("ResNet50v2", "frn", "Did you mean 'ResNet50V2'"),
        ("VGG16", "frn", "has no batch normalization"),
        ("vgg_a", "in", "one value a plane"),
    ],
)
def test_invalid_model_raises_a_one_line_error(name, norm, message):
    with pytest.raises(RecipeError, match=message) as error:
        make_network(name, norm)
    assert "\n" not in str(error.value)


def test_unknown_norm_argument_raises_an_error():
    config = make_config(norm="frn", norm_kwargs={"eps": 1})
    with pytest.raises(RecipeError, match="Did you mean 'epsilon'"):
        norms.get_norm(config)
