"""`is_norm_layer` and `norm_weights`."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_norm


class InstanceNorm(layers.Layer):
    """A custom normalization with a weight."""

    def build(self, input_shape):
        self.alpha = self.add_weight(name="alpha", shape=(input_shape[-1],))

    def call(self, x):
        return x * self.alpha


class ConvNorm(layers.Layer):
    """A block that its name does not make a normalization."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 1, use_bias=False)
        self.norm = layers.BatchNormalization(name="inner")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], 4))

    def call(self, x):
        return self.norm(self.conv(x))


class NormalNoise(layers.Layer):
    """A layer named after a distribution."""


NORMS = [
    *(keras_norm.get(name).layer for name in keras_norm.names()[:-1]),
    layers.BatchNormalization,
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.UnitNormalization,
    InstanceNorm,
]
if hasattr(layers, "RMSNormalization"):
    NORMS.append(layers.RMSNormalization)
OTHERS = [
    keras_norm.TLU,
    keras_norm.NoNormalization,
    layers.Normalization,
    lambda: layers.SpectralNormalization(layers.Conv2D(4, 1)),
    layers.ReLU,
    lambda: layers.Conv2D(4, 1),
    ConvNorm,
    NormalNoise,
    lambda: keras.Sequential([layers.BatchNormalization()], name="norm"),
    lambda: None,
]


@pytest.mark.parametrize("make_layer", NORMS)
def test_a_normalization_layer_is_recognized(make_layer):
    assert keras_norm.is_norm_layer(make_layer())


@pytest.mark.parametrize("make_layer", OTHERS)
def test_other_layers_are_not_normalization_layers(make_layer):
    assert not keras_norm.is_norm_layer(make_layer())


def test_a_subclass_is_a_normalization_layer():
    for base in keras_norm.FRN, layers.LayerNormalization:
        subclass = type("Custom", (base,), {})
        assert keras_norm.is_norm_layer(subclass())


def test_norm_weights_are_found_at_any_depth():
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(3, 1),
            keras_norm.RBN(name="rbn"),
            keras_norm.TLU(name="tlu"),
        ],
        name="inner",
    )
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.PReLU(name="prelu"),
            inner,
            InstanceNorm(name="custom"),
            ConvNorm(name="block"),
            layers.Dense(2, name="gamma"),
        ]
    )
    model(np.zeros((1, 4, 4, 3), "float32"))
    moving = ["moving_mean", "moving_variance"]
    expected = {
        "rbn": ["gamma", "beta", "center_weight", "scale_weight", "scale_bias"],
        "tlu": ["tau"],
        "custom": ["alpha"],
        "inner": ["gamma", "beta"],
    }
    names = sorted(
        [name for names in expected.values() for name in names] + moving * 2
    )
    weights = keras_norm.norm_weights(model)
    assert sorted(weight.name for weight in weights) == names
    assert len({id(weight) for weight in weights}) == len(weights)
    assert {id(w) for w in weights} <= {id(w) for w in model.weights}


def test_a_layer_that_is_called_twice_counts_once():
    x = keras.Input((4, 4, 3))
    norm = keras_norm.FRN()
    model = keras.Model(x, norm(norm(x)))
    assert len(keras_norm.norm_weights(model)) == 2
