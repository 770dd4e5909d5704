"""Finds the normalization layers of a model and their weights."""

import re

import keras

from keras_norm import _keras_internals
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.layers.no_norm import NoNormalization
from keras_norm.layers.tlu import TLU

_KERAS_NORMS = tuple(
    getattr(keras.layers, name)
    for name in (
        "BatchNormalization",
        "GroupNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "UnitNormalization",
    )
    # Keras 3.8 has no RMSNormalization.
    if hasattr(keras.layers, name)
)
# These normalize input data or a kernel, not features.
_OTHER_LAYERS = (
    keras.layers.Normalization,
    keras.layers.SpectralNormalization,
    NoNormalization,
)
# Matches "Norm" and "normalization", but not "Normal", a distribution.
_NORM_NAME = re.compile("[Nn]orm(?!al(?!i[sz]))")


def is_norm_layer(layer):
    """Returns True if a layer normalizes features.

    Normalization layers are:

    * those of this package: `FRN`, `RBN`, `BatchNormalization` and so on, and
      their subclasses, but not `TLU`, which is an activation, and not
      `NoNormalization`, which does nothing;
    * those of Keras: `BatchNormalization`, `GroupNormalization`,
      `LayerNormalization`, `RMSNormalization`, `UnitNormalization`, and their
      subclasses. `keras.layers.Normalization` is excluded because it
      preprocesses data, `SpectralNormalization` because it normalizes a kernel;
    * custom layers without inner layers if the name of their class, or of a
      base class, contains "Norm", such as `InstanceNorm`. A block such as
      `ConvNormReLU` is not a normalization layer, but the layer inside it is.

    Args:
        layer: Any object, typically a Keras layer.

    Example:

    >>> import keras, keras_norm
    >>> keras_norm.is_norm_layer(keras_norm.FRN())
    True
    >>> keras_norm.is_norm_layer(keras.layers.LayerNormalization())
    True
    >>> keras_norm.is_norm_layer(keras.layers.Dense(2))
    False
    """
    if not isinstance(layer, keras.layers.Layer):
        return False
    if isinstance(layer, (AffineChannelLayer, *_KERAS_NORMS)):
        return True
    if isinstance(layer, _OTHER_LAYERS):
        return False
    names = [cls.__name__ for cls in type(layer).__mro__]
    has_norm_name = any(map(_NORM_NAME.search, names))
    return has_norm_name and not _keras_internals.direct_layers(layer)


def norm_weights(model):
    """Returns the weights of a model's normalization layers and thresholds.

    These are usually excluded from weight decay: it would pull a scale or a
    learned threshold toward zero, and no kernel before a normalization layer
    needs that.

    Args:
        model: A built Keras model or layer. Layers inside nested models,
            wrappers and composite layers count too.

    Returns:
        List of variables in the order of the layers: all weights of every
        layer that `is_norm_layer` accepts, moving statistics included, and of
        every `TLU`.

    Example:

    >>> import keras, keras_norm
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 3)),
    ...         keras.layers.Conv2D(4, 3),
    ...         keras_norm.FRN(),
    ...         keras_norm.TLU(),
    ...     ]
    ... )
    >>> weights = keras_norm.norm_weights(model)
    >>> [weight.name for weight in weights]
    ['gamma', 'beta', 'tau']
    >>> optimizer = keras.optimizers.AdamW(weight_decay=0.01)
    >>> optimizer.exclude_from_weight_decay(var_list=weights)
    """
    return [
        weight
        for layer in _keras_internals.all_layers(model)
        if is_norm_layer(layer) or isinstance(layer, TLU)
        for weight in layer.weights
    ]
