"""Checks keyword arguments against a layer class before a layer is created."""

import inspect

import keras

from keras_norm.errors import did_you_mean
from keras_norm.layers._batch_statistics import BatchStatisticsLayer
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.layers._moving_moments import MovingMomentsLayer

# Base classes; their subclasses pass their arguments themselves.
BASE_CLASSES = (
    ChannelLayer,
    AffineChannelLayer,
    MovingMomentsLayer,
    BatchStatisticsLayer,
)
NAMED_PARAMETERS = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


class ArgumentError(TypeError, ValueError):
    """An unknown argument: a TypeError in Python, a ValueError in Keras."""


def check(name, make_layer, kwargs, fixed=()):
    """Raises an error if a layer does not take an argument.

    Args:
        name: Name of the norm, for the error message.
        make_layer: Layer class, or a function that creates a layer.
        kwargs: Dict of arguments.
        fixed: Names of arguments that the caller cannot pass.

    Raises:
        ArgumentError: for an unknown or fixed argument.
    """
    accepted = accepted_arguments(make_layer)
    if accepted is None or kwargs.keys() <= accepted - {*fixed}:
        return
    accepted = sorted(accepted - {*fixed})
    unknown = {k: value for k, value in kwargs.items() if k not in accepted}
    first = next(iter(unknown))
    raise ArgumentError(
        f"The norm {name!r} takes no argument {first!r}."
        f"{did_you_mean(first, accepted)} "
        f"It takes: {', '.join(accepted)}. Received: kwargs={unknown}"
    )


def accepted_arguments(make_layer):
    """Returns the argument names of a class or function as a set.

    Returns None if any name is accepted.
    """
    functions = [make_layer]
    if isinstance(make_layer, type):
        # Each constructor passes unknown arguments on to its base class.
        functions = [
            vars(cls)["__init__"]
            for cls in make_layer.__mro__
            if "__init__" in vars(cls) and cls not in BASE_CLASSES
        ]
    names = set()
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        names |= {p.name for p in parameters if p.kind in NAMED_PARAMETERS}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not takes_any or function is keras.layers.Layer.__init__:
            return names - {"self"}
    return None
