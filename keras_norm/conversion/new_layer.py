"""The layer that takes a batch normalization's place, not built yet."""

import inspect

import keras

from keras_norm import registry
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line

# What gamma and beta are made with: of a meaning in every normalization.
WEIGHT_OPTIONS = tuple(
    f"{weight}_{option}"
    for weight in ("gamma", "beta")
    for option in ("initializer", "regularizer", "constraint")
)
# What only a layer with moving moments understands as batch normalization does.
MOMENT_OPTIONS = (
    "momentum",
    "epsilon",
    "moving_mean_initializer",
    "moving_variance_initializer",
    "synchronized",
    "renorm",
    "renorm_clipping",
    "renorm_momentum",
)


def standardize_norm(norm, kwargs):
    """A `keras_norm.Norm`, or a function from the old layer to the new one.

    Args:
        norm: A name of the registry, a `Norm`, a layer class that takes `axis`,
            or a function.
        kwargs: Dict of arguments of every new layer.

    Raises:
        ConversionError: for an unknown name, or arguments for a function.
    """
    if isinstance(norm, keras.layers.Layer):
        raise ConversionError(
            "A layer would be one and the same in every place: pass its class, "
            f"or a function that makes a new one. Received: norm={norm!r}"
        )
    is_function = callable(norm) and not isinstance(norm, (registry.Norm, type))
    if is_function and kwargs:
        raise ConversionError(
            "A function that makes the new layer takes the old layer and no "
            f"arguments. Received: {kwargs}"
        )
    if is_function:
        return norm
    try:
        return registry.get(norm, **kwargs)
    except ValueError as error:
        raise ConversionError(str(error)) from error


def norm_name(norm):
    """What reports call a norm."""
    return getattr(norm, "name", None) or getattr(norm, "__name__", "custom")


def make_layer(batch_norm, norm, fresh=False):
    """A new layer in place of a batch normalization.

    Name, axis, dtype policy, `trainable`, and the initializers, regularizers
    and constraints of gamma and beta carry over; momentum, epsilon and the
    options of the moving moments to a layer that has them too. Arguments that
    the norm was given come first.

    Args:
        batch_norm: The layer to replace.
        norm: As `standardize_norm` returns it.
        fresh: Whether the new layer is to start a training from nothing, with
            the norm's own momentum and epsilon.

    Raises:
        ConversionError: if the layer cannot be made.
    """
    if not isinstance(norm, registry.Norm):
        return _call_function(norm, batch_norm)
    try:
        kwargs = {
            **_carried(batch_norm, norm, fresh),
            **identity_kwargs(batch_norm),
        }
        return norm.layer(axis=batch_norm.axis, **kwargs)
    except (TypeError, ValueError) as error:
        raise ConversionError(
            f"{norm.name} cannot take the place of {batch_norm.name!r}: "
            f"{one_line(error)}"
        ) from error


def identity_kwargs(layer):
    """What a layer keeps whatever becomes of it: name, dtype, trainable."""
    policy = layer.dtype_policy
    kept = {
        "name": layer.name,
        # By name, where that says it all: some layers save no policy object.
        "dtype": policy.name if type(policy) is keras.DTypePolicy else policy,
        "trainable": layer.trainable,
    }
    if layer.activity_regularizer is not None:
        kept["activity_regularizer"] = layer.activity_regularizer
    return kept


def _carried(batch_norm, norm, fresh):
    parameters = inspect.signature(_layer_class(norm, batch_norm)).parameters
    names = list(WEIGHT_OPTIONS)
    if "moving_mean_initializer" in parameters and not fresh:
        names += MOMENT_OPTIONS
        # Calibration scales what it gives: gamma has to make up for that.
        names += () if "restriction" in parameters else ("scale",)
        names += ("center",)
    return {
        name: getattr(batch_norm, name)
        for name in names
        if name in parameters
        and name not in norm.kwargs
        and hasattr(batch_norm, name)
    }


def _layer_class(norm, batch_norm):
    return type(norm.layer(axis=batch_norm.axis, dtype="float32"))


def _call_function(function, batch_norm):
    layer = function(batch_norm)
    if layer is None or layer is batch_norm:
        return None
    if not isinstance(layer, keras.layers.Layer) or layer.built:
        raise ConversionError(
            "The function that makes the new layer must return a new Keras "
            "layer that is not built, or None to keep the old one. "
            f"Received: {layer!r} for {batch_norm.name!r}"
        )
    return layer
