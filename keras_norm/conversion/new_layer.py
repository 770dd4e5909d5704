"""Creates the layer that replaces a batch normalization."""

import inspect

import keras

from keras_norm import registry
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line

# Options of gamma and beta, which every normalization understands.
WEIGHT_OPTIONS = tuple(
    f"{weight}_{option}"
    for weight in ("gamma", "beta")
    for option in ("initializer", "regularizer", "constraint")
)
# Options that only a layer with moving moments understands.
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
    """Returns a `keras_norm.Norm`, or a function from old to new layer.

    Args:
        norm: A registered name, a `Norm`, a layer class that takes `axis`, or
            a function.
        kwargs: Dict of arguments for every new layer.

    Raises:
        ConversionError: for an unknown name, or arguments for a function.
    """
    if isinstance(norm, keras.layers.Layer):
        raise ConversionError(
            "`norm` is a layer, which every place would share: pass its class, "
            f"or a function that creates a new layer. Received: norm={norm!r}"
        )
    is_function = callable(norm) and not isinstance(norm, (registry.Norm, type))
    if is_function and kwargs:
        raise ConversionError(
            "Arguments of the new layers need the name or the class of a norm: "
            "set them inside the function that creates the new layer. "
            f"Received: {kwargs}"
        )
    if is_function:
        return norm
    try:
        return registry.get(norm, **kwargs)
    except ValueError as error:
        raise ConversionError(str(error)) from error


def norm_name(norm):
    """Returns the name of a norm in reports."""
    return getattr(norm, "name", None) or getattr(norm, "__name__", "custom")


def with_learned_epsilon(norm):
    """Returns FRN with a learned epsilon, per channel unless it has one.

    Returns:
        A `keras_norm.Norm`, or None if the norm is not FRN.
    """
    if getattr(norm, "name", None) != "frn":
        return None
    if norm.kwargs.get("learned_epsilon") in (True, "channel"):
        return norm
    return registry.get(norm, learned_epsilon="channel")


def make_layer(batch_norm, norm, initialize=False):
    """Creates the layer that replaces a batch normalization, not built yet.

    Name, axis, dtype policy, `trainable`, and the initializers, regularizers
    and constraints of gamma and beta carry over. Momentum, epsilon and the
    options of the moving moments carry over to a layer that has them.
    Arguments of the norm take precedence.

    Args:
        batch_norm: The layer to replace.
        norm: The result of `standardize_norm`.
        initialize: If True, the new layer is for training from scratch, with
            the norm's own momentum and epsilon.

    Raises:
        ConversionError: if the layer cannot be created.
    """
    if not isinstance(norm, registry.Norm):
        return _call_function(norm, batch_norm)
    try:
        kwargs = {
            **_carried_kwargs(batch_norm, norm, initialize),
            **identity_kwargs(batch_norm),
        }
        return norm.layer(axis=batch_norm.axis, **kwargs)
    except (TypeError, ValueError) as error:
        raise ConversionError(
            f"{norm.name} cannot replace {batch_norm.name!r}: {one_line(error)}"
        ) from error


def identity_kwargs(layer):
    """Returns the arguments that a layer passes on to any replacement."""
    policy = layer.dtype_policy
    kept = {
        "name": layer.name,
        # Some layers cannot save a policy object: pass its name if it has one.
        "dtype": policy.name if type(policy) is keras.DTypePolicy else policy,
        "trainable": layer.trainable,
    }
    if layer.activity_regularizer is not None:
        kept["activity_regularizer"] = layer.activity_regularizer
    return kept


def _carried_kwargs(batch_norm, norm, initialize):
    parameters = inspect.signature(_layer_class(norm, batch_norm)).parameters
    names = list(WEIGHT_OPTIONS)
    if "moving_mean_initializer" in parameters and not initialize:
        names += MOMENT_OPTIONS
        # Calibration scales the output, and gamma has to compensate.
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
            "The function that creates the new layer must return a new Keras "
            "layer that is not built, or None to keep the old layer. "
            f"Received: {layer!r} for {batch_norm.name!r}"
        )
    return layer
