"""Tests of building detectors: norms, heads and order of the outputs."""

import collections
import types

import keras
import numpy as np
import pytest

import keras_norm
from keras_norm.layers._groups import default_groups
from recipes.detection import backbones
from recipes.detection import build
from recipes.detection import retinanet
from recipes.detection.anchors import Anchors
from recipes.errors import RecipeError
from recipes.models import freeze
from tests.recipes.detection import small_detector

# A number of channels that every norm can divide into groups.
SMALL = {"model": "resnet_small", "pyramid_filters": 32, "head_depth": 2}


def build_model(num_classes=3, **flags):
    config = small_detector.make_config(**{**SMALL, **flags})
    shape = (config.image_size, config.image_size, 3)
    data = types.SimpleNamespace(image_shape=shape, num_classes=num_classes)
    return build.build_detector(config, data)


def kinds(model):
    return collections.Counter(type(layer).__name__ for layer in model.layers)


@pytest.mark.parametrize(
    ("model", "num_norms"),
    [
        # Stem, two per block, and the shortcuts of all four blocks.
        ("resnet_small", 1 + 2 * 4 + 4),
        pytest.param("ResNet50", 53, marks=pytest.mark.long),
        pytest.param("ResNet101", 104, marks=pytest.mark.long),
    ],
)
def test_every_norm_is_frn(model, num_norms):
    """Counts the norms in backbone, laterals, 5 levels and two heads."""
    model = build_model(
        model=model,
        image_size=128,
        max_level=7,
        head_depth=4,
        norm="frn",
    )
    found = kinds(model)
    assert found["FRN"] == num_norms + 3 + 5 + 2 * 4 * 5
    assert "BatchNormalization" not in found and "ReLU" not in found
    # At least one per convolution of the heads, and one before the level
    # that is computed from a level without an activation.
    assert found["TLU"] >= 2 * 4 * 5 + 1


@pytest.mark.parametrize("norm", keras_norm.names())
def test_every_norm_can_be_used_in_the_whole_detector(norm):
    model = build_model(norm=norm)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    wanted = keras_norm.get(norm).layer()
    norms = [
        layer
        for layer in model.layers
        if layer.name.endswith("_norm") and layer.weights
    ]
    assert {type(layer) for layer in norms} <= {type(wanted)}
    assert len(norms) == (0 if norm == "none" else 13 + 3 + 3 + 2 * 2 * 3)
    # Both are batch normalization over different batches.
    config = wanted.get_config()
    for layer in norms:
        expected = {**config, "name": layer.name}
        if expected.get("groups") == "auto":
            # The config of a built layer contains the number.
            expected["groups"] = default_groups(layer.gamma.shape[0])
        assert layer.get_config() == expected
    left = [la for la in model.layers if type(la).__name__[:5] == "Batch"]
    assert set(left) <= set(norms)


def test_levels_share_convolutions_but_not_norms():
    model = build_model(norm="frn", max_level=6)
    for head, num_values in (("class_head", 3), ("box_head", 4)):
        layers = [la for la in model.layers if la.name.startswith(head)]
        found = collections.Counter(type(layer).__name__ for layer in layers)
        # Two convolutions and the last one, on four levels.
        assert found["Conv2D"] == 3
        assert found["FRN"] == found["TLU"] == 2 * 4
        last = model.get_layer(f"{head}_out")
        assert last.filters == 9 * num_values
    parts = retinanet.head_layers(model)
    backbone = backbones.build_backbone(
        "resnet_small", keras_norm.get("frn"), (64, 64, 3)
    )
    names = {layer.name for layer in backbone.layers[1:]}
    assert names == {la.name for la in model.layers[1:]} - {
        la.name for la in parts
    }


def test_initial_probability_is_the_prior():
    model = build_model(norm="frn")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3))
    outputs = model(images.astype("float32"))
    probability = 1 / (1 + np.exp(-np.asarray(outputs["classes"])))
    assert probability.mean() == pytest.approx(0.01, rel=0.1)
    assert 0.002 < probability.min() and probability.max() < 0.05
    assert abs(np.asarray(outputs["boxes"]).mean()) < 0.05


def coordinates(anchors, filters=9):
    """Builds a detector whose outputs are the positions of its anchors.

    The input holds the row and column of each pixel and a constant. The levels
    pass them on in separate channels.
    """
    size = anchors.image_size
    inputs = keras.Input((size, size, 3))
    maps = [
        keras.layers.AveragePooling2D(2**level)(inputs) for level in (3, 4, 5)
    ]
    model = retinanet.build_retinanet(
        keras.Model(inputs, maps),
        keras_norm.get("none"),
        anchors,
        num_classes=2,
        filters=filters,
        head_depth=0,
    )
    for i, level in enumerate((3, 4, 5)):
        lateral = np.zeros((1, 1, 3, filters))
        lateral[0, 0, :, 3 * i : 3 * i + 3] = np.eye(3)
        own = np.zeros((3, 3, filters, filters))
        own[1, 1, 3 * i : 3 * i + 2, :2] = np.eye(2)
        own[1, 1, 3 * i + 2, 2:4] = 1, level
        model.get_layer(f"pyramid_lateral{level}").set_weights([lateral])
        model.get_layer(f"pyramid_level{level}").set_weights([own])
    halved = np.zeros((3, 3, filters, filters))
    halved[:2, :2, range(4), range(4)] = 0.25
    # Level 6 follows level 5.
    halved[:2, :2, 2, 3] = 0.25
    model.get_layer("pyramid_level6").set_weights([halved])
    shape = (anchors.num_per_location, 2)
    kernel = np.zeros((3, 3, filters, *shape))
    kernel[1, 1, 0, :, 0] = kernel[1, 1, 1, :, 1] = 1
    bias = np.repeat(1000.0 * np.arange(9), 2)
    out = kernel.reshape(3, 3, filters, -1)
    model.get_layer("class_head_out").set_weights([out, bias])
    kernel = np.zeros((3, 3, filters, 9, 4))
    for value, channel in enumerate((0, 1, 3)):
        kernel[1, 1, channel, :, value] = 1
    bias = np.zeros((9, 4))
    bias[:, 3] = np.arange(9)
    out = kernel.reshape(3, 3, filters, -1)
    model.get_layer("box_head_out").set_weights([out, bias.reshape(-1)])
    return model


def test_outputs_have_the_order_of_the_anchors():
    anchors = Anchors(128, 3, 6, 4.0)
    model = coordinates(anchors)
    pixels = np.arange(128) + 0.5
    image = np.stack([*np.meshgrid(pixels, pixels, indexing="ij")], -1)
    image = np.concatenate([image, np.ones((128, 128, 1))], -1)
    outputs = model(image[None].astype("float32"))
    sides = anchors.boxes[:, 2:] - anchors.boxes[:, :2]
    centers = anchors.boxes[:, :2] + sides / 2
    # Side of a square of the same area, in octaves above 4 pixels.
    octaves = np.log2(np.sqrt(sides.prod(axis=1)) / 4)
    levels = np.floor(octaves + 1e-4)
    scales = np.round(3 * (octaves - levels))
    ratios = np.round(np.log2(sides[:, 0] / sides[:, 1])) + 1
    numbers = 3 * scales + ratios
    expected = np.column_stack([centers, levels, numbers])
    assert len(set(map(tuple, expected))) == len(expected)
    np.testing.assert_allclose(outputs["boxes"][0], expected, atol=1e-2)
    expected = centers + 1000 * numbers[:, None]
    np.testing.assert_allclose(outputs["classes"][0], expected, atol=1e-2)


@pytest.mark.parametrize("norm", ["frn", "bn", "gn"])
def test_frozen_layers(norm):
    model = build_model(norm=norm)
    every = {id(weight) for weight in model.trainable_variables}
    freeze.freeze(model, "backbone", retinanet.head_layers)
    left = {id(weight) for weight in model.trainable_variables}
    heads = [w for la in retinanet.head_layers(model) for w in la.weights]
    assert left == {id(w) for w in heads} & every and left

    model = build_model(norm=norm)
    every = {id(weight) for weight in model.trainable_variables}
    freeze.freeze(model, "norm", retinanet.head_layers)
    left = {id(weight) for weight in model.trainable_variables}
    convolutions = [
        weight
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
        for weight in layer.weights
    ]
    assert left == {id(weight) for weight in convolutions} < every


def test_activation_can_be_chosen():
    found = kinds(build_model(norm="frn", activation="relu"))
    assert "TLU" not in found and found["ReLU"] > 2 * 2 * 4
    assert found["FRN"] > 0
    found = kinds(build_model(norm="bn", activation="tlu"))
    assert "ReLU" not in found and found["TLU"] > 2 * 2 * 4


def test_keras_classifier_is_resized_as_a_backbone():
    classifier = keras.applications.MobileNetV2(
        (64, 64, 3), alpha=0.35, weights=None, classes=5
    )
    backbone = backbones.extract_backbone("a.keras", classifier, (128, 128, 3))
    shapes = [tensor.shape[1:3] for tensor in backbone.outputs]
    assert shapes == [(16, 16), (8, 8), (4, 4)]
    ours = {w.path: w for w in backbone.weights}
    theirs = {w.path: w for la in classifier.layers[:-2] for w in la.weights}
    # All layers except those after the last map.
    assert len(ours) > 200 and set(ours) <= set(theirs)
    assert set(theirs) == set(ours)
    for path, weight in ours.items():
        np.testing.assert_array_equal(weight, theirs[path], err_msg=path)
    model = retinanet.build_retinanet(
        backbone, keras_norm.get("frn"), Anchors(128, 3, 5), 2, 8, 1
    )
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert model(np.zeros((1, 128, 128, 3)))["boxes"].shape == (1, 3024, 4)


def test_error_names_a_norm_that_cannot_be_built():
    with pytest.raises(RecipeError, match="pyramid and heads .*--norm=gn: "):
        build_model(norm="gn", norm_kwargs={"groups": 16}, pyramid_filters=24)
    with pytest.raises(RecipeError, match="resnet_small .*--norm=gn.*: "):
        build_model(norm="gn", norm_kwargs={"groups": 5})
