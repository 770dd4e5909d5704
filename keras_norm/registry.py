"""Normalizations by name: a layer and the activation that goes with it.

A model builder takes a `Norm`, asks it for layers, and never asks which one it
is:

    y = norm.layer(name="norm1")(y)
    y = norm.activation(name="relu1")(y)

A normalization at the end of a residual branch has no activation of its own:
the builder leaves the second line out, and calls it after the addition.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping

import keras

from keras_norm import arguments
from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.eval_norm import EvalNorm
from keras_norm.layers.frn import FRN
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization
from keras_norm.layers.group_norm import GroupNormalization
from keras_norm.layers.no_norm import NoNormalization
from keras_norm.layers.rbn import RBN
from keras_norm.layers.tlu import TLU

# Batch moments as the residual networks of both papers were trained with.
BATCH_DEFAULTS = {"momentum": 0.9, "epsilon": 1e-5}
# Batch Renormalization opens its limits slowly, to 3 and 5 in the end. Without
# that schedule they diverge (10% on digits after 12 epochs with ResNet-8, where
# these reach 99%): these are narrow enough to start with, and the statistics
# that renormalize follow as fast as the moving ones.
RENORM_DEFAULTS = {
    "renorm": True,
    "renorm_clipping": {"rmax": 1.5, "rmin": 1 / 1.5, "dmax": 0.5},
    "renorm_momentum": 0.9,
}


@dataclasses.dataclass(frozen=True)
class Norm:
    """A normalization and its activation, ready to be handed to a builder.

    Attributes:
        name: What it is called in flags and reports.
        make_layer: `f(axis=..., **kwargs)` gives a layer.
        make_activation: `f(axis=..., name=...)` gives the activation.
        kwargs: Keyword arguments of every layer it makes.
    """

    name: str
    make_layer: Callable[..., keras.layers.Layer]
    make_activation: Callable[..., keras.layers.Layer]
    kwargs: Mapping = dataclasses.field(default_factory=dict)

    @property
    def has_own_activation(self):
        """Whether its activation is another one than plain ReLU."""
        return self.make_activation is not _relu

    def layer(self, axis=-1, **kwargs):
        """A new normalization layer.

        Args:
            axis: Integer, the channel axis.
            **kwargs: Layer arguments, such as `name` or `dtype`.

        Raises:
            ValueError: for an argument that is unknown to the layer. Where the
                normalization means nothing for a shape, the layer raises it
                when it is built.
        """
        return self.make_layer(axis=axis, **{**self.kwargs, **kwargs})

    def activation(self, axis=-1, **kwargs):
        """A new activation, to follow a layer or an addition of layers."""
        return self.make_activation(axis=axis, **kwargs)

    def with_activation(self, name):
        """The same normalization with another activation behind it.

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
    """The normalization of that name.

    Args:
        identifier: A name out of `names()`, a `Norm`, or a callable that takes
            `axis` and gives a layer, to be followed by ReLU.
        **kwargs: Keyword arguments of every layer it makes.

    Returns:
        A `Norm`.

    Raises:
        ValueError: for an unknown name or a layer.
        TypeError: for an argument that its layers do not take. It is a
            ValueError as well.

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
            "A layer would be one and the same in every place: pass its class. "
            f"Received: identifier={identifier!r}"
        )
    elif callable(identifier):
        norm = Norm(
            getattr(identifier, "__name__", "custom"), identifier, _relu
        )
    elif isinstance(identifier, str) and identifier in _NORMS:
        norm = _NORMS[identifier]
    else:
        raise ValueError(
            f"Unknown norm.{arguments.hint(str(identifier).lower(), names())} "
            f"There are: {', '.join(names())}. Received: {identifier!r}"
        )
    cls, fixed = norm.make_layer, ()
    if isinstance(cls, _Preset):
        cls, fixed = cls.cls, cls.fixed
    arguments.check(norm.name, cls, kwargs, {"axis", *fixed})
    return dataclasses.replace(norm, kwargs={**norm.kwargs, **kwargs})


def names():
    """The names that `get` knows, in the order of the documentation."""
    return list(_NORMS)


def _relu(axis=-1, **kwargs):
    return keras.layers.ReLU(**kwargs)


_ACTIVATIONS = {"relu": _relu, "tlu": TLU}


@dataclasses.dataclass(frozen=True)
class _Preset:
    """A layer class with other defaults, and arguments that are its own."""

    cls: type
    defaults: Mapping = dataclasses.field(default_factory=dict)
    fixed: Mapping = dataclasses.field(default_factory=dict)

    def __call__(self, **kwargs):
        return self.cls(**{**self.defaults, **kwargs}, **self.fixed)


_batch_norm = _Preset(BatchNormalization, BATCH_DEFAULTS)
_EPSILON = {"epsilon": BATCH_DEFAULTS["epsilon"]}
_NORMS = {
    norm.name: norm
    for norm in (
        Norm("bn", _batch_norm, _relu),
        Norm("sync_bn", _batch_norm, _relu, {"synchronized": True}),
        Norm("brn", _batch_norm, _relu, RENORM_DEFAULTS),
        Norm("eval_norm", _Preset(EvalNorm, BATCH_DEFAULTS), _relu),
        Norm("gn", GroupNormalization, _relu),
        Norm("in", _Preset(GroupNormalization, fixed={"groups": -1}), _relu),
        # Over all positions and channels of a sample, as both papers compare
        # with.
        Norm("ln", _Preset(GroupNormalization, fixed={"groups": 1}), _relu),
        # With a fixed epsilon FRN is sign(x) where a plane has one value.
        Norm("frn", _Preset(FRN, {"learned_epsilon": "auto"}), TLU),
        Norm("rbn", _Preset(RBN, BATCH_DEFAULTS), _relu),
        Norm("frozen", _Preset(FrozenBatchNormalization, _EPSILON), _relu),
        Norm("none", NoNormalization, _relu),
    )
}
