"""Looks up normalizations by name, each with the activation that follows it.

A model builder takes a `Norm` and asks it for layers, whichever norm it is:

    y = norm.layer(name="norm1")(y)
    y = norm.activation(name="relu1")(y)

A normalization at the end of a residual branch is not followed by an
activation: the builder calls `activation` after the addition instead.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import keras

from keras_norm import errors
from keras_norm import layer_arguments
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers.tlu import TLU
from keras_norm.norm_table import NORMS


@dataclasses.dataclass(frozen=True)
class Norm:
    """A normalization and its activation, as a model builder takes them.

    Attributes:
        name: Name in flags and reports.
        make_layer: Function `f(axis=..., **kwargs)` that returns a layer.
        make_activation: Function `f(axis=..., name=...)` that returns the
            activation layer.
        kwargs: Keyword arguments of every layer.
    """

    name: str
    make_layer: Callable[..., keras.layers.Layer]
    make_activation: Callable[..., keras.layers.Layer]
    kwargs: Mapping = dataclasses.field(default_factory=dict)

    @property
    def has_own_activation(self):
        """True if the activation is not a plain ReLU."""
        return self.make_activation is not _make_relu

    def layer(self, axis=-1, **kwargs):
        """Creates a normalization layer.

        Args:
            axis: Integer, the channel axis.
            **kwargs: Layer arguments, such as `name` or `dtype`.

        Raises:
            ValueError: for an argument that the layer does not take. A layer
                that does not support an input shape raises an error when it is
                built.
        """
        return self.make_layer(axis=axis, **{**self.kwargs, **kwargs})

    def activation(self, axis=-1, **kwargs):
        """Creates an activation, to follow a layer or an addition of layers."""
        return self.make_activation(axis=axis, **kwargs)

    def with_activation(self, name):
        """Returns the same normalization with another activation.

        Args:
            name: `"relu"` or `"tlu"`.

        Raises:
            ValueError: for another name.
        """
        if name not in _ACTIVATIONS:
            raise ValueError(
                f"`name` must be one of {', '.join(_ACTIVATIONS)}. "
                f"Received: name={name!r}"
            )
        return dataclasses.replace(self, make_activation=_ACTIVATIONS[name])


def get(identifier, **kwargs):
    """Returns a normalization by name.

    Args:
        identifier: A name in `names()`, a `Norm`, or a callable that takes
            `axis` and returns a layer, which ReLU will follow.
        **kwargs: Keyword arguments of every layer.

    Returns:
        A `Norm`.

    Raises:
        ValueError: for an unknown name, or a layer instance.
        TypeError: for an argument that the layers do not take. It is also a
            ValueError.

    Example:

    >>> import keras, keras_norm
    >>> norm = keras_norm.get("frn", epsilon=1e-5)
    >>> x = keras.Input((8, 8, 16))
    >>> y = norm.layer(name="norm")(x)
    >>> type(norm.activation(name="act")).__name__
    'TLU'
    """
    if isinstance(identifier, Norm):
        norm = identifier
    elif isinstance(identifier, keras.layers.Layer):
        raise ValueError(
            "A layer instance would be shared by all places in the model: pass "
            f"its class. Received: identifier={identifier!r}"
        )
    elif callable(identifier):
        name = getattr(identifier, "__name__", "custom")
        norm = Norm(name, identifier, _make_relu)
    elif isinstance(identifier, str) and identifier in NORMS:
        norm = _norm_from_row(identifier, NORMS[identifier])
    else:
        hint = errors.did_you_mean(str(identifier), names())
        raise ValueError(
            f"Unknown norm.{hint} Known norms: {', '.join(names())}. "
            f"Received: {identifier!r}"
        )
    make_layer, fixed = norm.make_layer, ()
    if isinstance(make_layer, _LayerFactory):
        make_layer, fixed = make_layer.cls, make_layer.fixed
    layer_arguments.check(norm.name, make_layer, kwargs, {"axis", *fixed})
    return dataclasses.replace(norm, kwargs={**norm.kwargs, **kwargs})


def names():
    """Returns the names that `get` takes, in the order of the documentation."""
    return list(NORMS)


def _make_relu(axis=-1, **kwargs):
    return keras.layers.ReLU(**kwargs)


_ACTIVATIONS = {"relu": _make_relu, "tlu": TLU}


@dataclasses.dataclass(frozen=True)
class _LayerFactory:
    """Creates layers of a class with other defaults and fixed arguments."""

    cls: type
    defaults: Mapping
    fixed: Mapping

    def __call__(self, **kwargs):
        return self.cls(**{**self.defaults, **kwargs}, **self.fixed)


def _norm_from_row(name, row):
    # The package registers every layer with Keras when it is imported.
    cls = keras.saving.get_registered_object(f"{PACKAGE}>{row.layer}")
    return Norm(
        name,
        _LayerFactory(cls, row.defaults, row.fixed),
        _ACTIVATIONS[row.activation],
        row.options,
    )
