"""Keyword arguments that a layer class takes, known before a layer is made."""

import difflib
import inspect

import keras

from keras_norm.layers._batch_statistics import BatchStatisticsLayer
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.layers._moving_moments import MovingMomentsLayer

# Base classes, whose arguments their subclasses fill in.
INTERNAL = (
    ChannelLayer,
    AffineChannelLayer,
    MovingMomentsLayer,
    BatchStatisticsLayer,
)
BY_NAME = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


class ArgumentError(TypeError, ValueError):
    """An unknown argument: a TypeError to Python, a ValueError to Keras."""


def check(name, make_layer, kwargs, fixed=()):
    """Raises an error for arguments that a layer does not take.

    Args:
        name: Of the norm, for the message.
        make_layer: Layer class, or a function that makes a layer.
        kwargs: Dict of arguments.
        fixed: Names of arguments that it takes, but not from the caller.

    Raises:
        ArgumentError: a TypeError and a ValueError.
    """
    taken = accepted(make_layer)
    if taken is None or kwargs.keys() <= taken - {*fixed}:
        return
    taken = sorted(taken - {*fixed})
    unknown = {key: value for key, value in kwargs.items() if key not in taken}
    first = next(iter(unknown))
    raise ArgumentError(
        f"The norm {name!r} takes no argument {first!r}.{hint(first, taken)} "
        f"It takes: {', '.join(taken)}. Received: kwargs={unknown}"
    )


def accepted(make_layer):
    """The names of its arguments, as a set; None if it takes any."""
    functions = [make_layer]
    if isinstance(make_layer, type):
        # One hands what it does not know to the next.
        functions = [
            vars(cls)["__init__"]
            for cls in make_layer.__mro__
            if "__init__" in vars(cls) and cls not in INTERNAL
        ]
    names = set()
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        names |= {p.name for p in parameters if p.kind in BY_NAME}
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not takes_any or function is keras.layers.Layer.__init__:
            return names - {"self"}
    return None


def hint(word, known):
    """A sentence with the nearest of the words that are known, or nothing."""
    close = difflib.get_close_matches(word, known, 1)
    return f" Did you mean {close[0]!r}?" if close else ""
