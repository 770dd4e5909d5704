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


def kinds(model):
    return collections.Counter(
        type(operation).__name__ for operation in model._operations
    )


def make(name, norm="frn", shape=SHAPE, **kwargs):
    return classifiers.make_classifier(
        name, keras_norm.get(norm, **kwargs), shape, 10
    )


@pytest.mark.parametrize("norm", keras_norm.names())
def test_every_norm_builds_a_network(norm):
    model = make("resnet8_cifar", norm)
    logits = model(np.zeros((2, *SHAPE), "float32"), training=True)
    assert logits.shape == (2, 10)
    assert np.isfinite(logits).all()
    assert kinds(model)["BatchNormalization"] == (
        9 if norm in ("bn", "sync_bn", "brn") else 0
    )


@pytest.mark.parametrize("depth", classifiers.CIFAR_DEPTHS)
def test_a_cifar_resnet_has_its_depth(depth):
    model = make(f"resnet{depth}_cifar")
    counts = kinds(model)
    shortcuts = 2
    assert counts["Conv2D"] + counts["Dense"] - shortcuts == depth
    # Every norm but those at the end of a branch has its own activation, and
    # every addition has one.
    blocks = (depth - 2) // 2
    assert counts["FRN"] == counts["Conv2D"]
    assert counts["TLU"] == counts["FRN"] - shortcuts
    assert counts["Add"] == blocks
    assert counts["ReLU"] == 0


def test_the_end_of_a_branch_has_no_activation():
    model = make("resnet8_cifar")
    for block in (1, 2, 3):
        add = model.get_layer(f"stage{block}_block1_add")
        producers = [x._keras_history.operation for x in add.input]
        assert not any(isinstance(p, keras_norm.TLU) for p in producers[1:])
        follower = model.get_layer(f"stage{block}_block1_out")
        assert isinstance(follower, keras_norm.TLU)


def test_dense_layers_of_vgg_learn_epsilon():
    model = make("vgg_a")
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
    counts = kinds(make(name, shape=(96, 96, 3)))
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
def test_the_activation_can_be_chosen(norm, activation, num_thresholds):
    chosen = keras_norm.get(norm).with_activation(activation)
    counts = kinds(
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
def test_the_activation_of_applications_can_be_chosen(
    norm, activation, num_thresholds
):
    chosen = keras_norm.get(norm).with_activation(activation)
    model = classifiers.make_classifier("ResNet50V2", chosen, (64, 64, 3), 10)
    counts = kinds(model)
    assert counts["TLU"] == num_thresholds
    # Its activations are layers of another kind.
    assert (counts["Activation"] > 40) == (activation == "relu")
    assert counts["FRN"] == (49 if norm == "frn" else 0)


def test_vgg_by_a_number_has_its_widths_divided():
    by8, by512 = make("vgg_a_by8"), make("vgg_a_by512")
    whole = make("vgg_a")
    # But for the input, which is counted.
    names = [layer.name for layer in whole.layers[1:]]
    assert [layer.name for layer in by8.layers[1:]] == names
    for name in names:
        if name.startswith("conv") and name[-2] == "_":
            filters = whole.get_layer(name).filters
            assert by8.get_layer(name).filters == filters // 8
            # At least one is left.
            assert by512.get_layer(name).filters == max(filters // 512, 1)
    assert [by8.get_layer(f"dense{i}").units for i in (1, 2)] == [512, 512]
    assert by8.get_layer("conv5_2").filters == 64
    assert by8.output_shape == (None, 10)
    assert kinds(by8) == kinds(whole)


@pytest.mark.parametrize("name", ["vgg_a_by0", "vgg_a_by", "vgg_a_by-8"])
def test_what_divides_no_width_is_no_network(name):
    with pytest.raises(RecipeError, match=f"unknown model '{name}'.*vgg_a"):
        make(name)


def test_vgg_needs_room_to_halve_the_map():
    with pytest.raises(RecipeError, match="at least 32x32 pixels"):
        make("vgg_a_by8", shape=(28, 28, 1))


def test_a_network_starts_with_the_norms_own_numbers():
    layer = make("ResNet50", "rbn").get_layer("conv1_bn")
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    np.testing.assert_array_equal(layer.gamma, 1.0)


def test_logits_are_float32_under_every_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = make("resnet8_cifar")
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
def test_what_cannot_be_built_is_named(name, norm, message):
    with pytest.raises(RecipeError, match=message) as error:
        make(name, norm)
    assert "\n" not in str(error.value)


def test_a_wrong_argument_of_the_norm_is_named():
    config = make_config(norm="frn", norm_kwargs={"eps": 1})
    with pytest.raises(RecipeError, match="Did you mean 'epsilon'"):
        norms.get_norm(config)
