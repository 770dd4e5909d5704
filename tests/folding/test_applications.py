"""Folding of networks of keras.applications, with random statistics."""

import collections
import re

import keras
import numpy as np
import pytest

import keras_norm

# Batch normalizations: all of them, and those that fold.
COUNTS = {
    "MobileNetV2": (52, 52),
    "ResNet50": (53, 53),
    "EfficientNetB0": (49, 49),
    "NASNetMobile": (192, 192),
    "MobileNetV3Small": (34, 34),
    "InceptionV3": (94, 94),
    "Xception": (40, 40),
    "ResNet50V2": (49, 33),
    "DenseNet121": (121, 59),
}
# The reasons of the others: what the layer before feeds too, and what follows.
REASONS = {
    "ResNet50V2": {
        ("Add", "Activation"): 9,
        ("MaxPooling2D", "Activation"): 3,
        ("BatchNormalization", "Activation"): 4,
    },
    "DenseNet121": {
        ("Concatenate", "Activation"): 58,
        ("BatchNormalization", "Activation"): 4,
    },
}
SIZES = {"InceptionV3": 75, "Xception": 71}
NAMES = [
    pytest.param(
        name, marks=[] if name == "MobileNetV2" else [pytest.mark.long]
    )
    for name in COUNTS
]


def build(name):
    """Builds a network with every gamma, beta and moment drawn at random."""
    size = SIZES.get(name, 64)
    network = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10
    )
    generator = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.variables:
                shape = variable.shape
                if variable.name == "moving_variance":
                    value = generator.uniform(0.5, 2.0, shape)
                else:
                    center = 1.0 if variable.name == "gamma" else 0.0
                    value = generator.normal(center, 0.25, shape)
                variable.assign(value)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_application(name):
    network = build(name)
    folded, report = keras_norm.fold(network)
    assert (len(report.entries), len(report.folded)) == COUNTS[name]
    assert report.comparisons[0].relative <= 1e-5
    pattern = re.compile(r"a layer before it also feeds '.*' \((\w+)\)")
    reasons = collections.Counter()
    for entry in report.kept:
        before, behind = entry.reason.split("; ")
        (kind,) = re.search(r"feeds '.*' \((\w+)\)", behind).groups()
        match = pattern.search(before)
        reasons[match[1] if match else before, kind] += 1
    assert dict(reasons) == REASONS.get(name, {})
    kinds = collections.Counter(type(x).__name__ for x in folded.layers)
    assert kinds["BatchNormalization"] == len(report.kept)
