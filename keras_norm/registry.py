"""Normalizations by name: a layer and the activation that goes with it.

A model builder takes a `Norm`, asks it for layers, and never asks which one it
is:

    y = norm.layer(y.shape, name="norm1")(y)
    y = norm.activation(name="relu1")(y)

A normalization at the end of a residual branch has no activation of its own:
the builder leaves the second line out, and calls it after the addition.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable
from collections.abc import Mapping

import keras

from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.eval_norm import EvalNorm
from keras_norm.layers.frn import FRN
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
        make_layer: `f(shape, axis, **kwargs)` gives a layer for inputs of that
            shape, `None` for an unknown size.
        make_activation: `f(axis=..., name=...)` gives the activation.
        kwargs: Keyword arguments of every layer it makes.
    """

    name: str
    make_layer: Callable[..., keras.layers.Layer]
    make_activation: Callable[..., keras.layers.Layer]
    kwargs: Mapping = dataclasses.field(default_factory=dict)

    def layer(self, shape, axis=-1, **kwargs):
        """A new normalization layer.

        Args:
            shape: Shape of the inputs, batch included.
            axis: Integer, the channel axis.
            **kwargs: Layer arguments, such as `name` or `dtype`.

        Raises:
            ValueError: where the normalization means nothing for that shape, or
                an argument is unknown to it.
        """
        return self.make_layer(shape, axis=axis, **{**self.kwargs, **kwargs})

    def activation(self, axis=-1, **kwargs):
        """A new activation, to follow a layer or an addition of layers."""
        return self.make_activation(axis=axis, **kwargs)


def get(identifier, **kwargs):
    """The normalization of that name.

    Args:
        identifier: A name out of `names()`, a `Norm`, or a callable that takes
            `axis` and gives a layer, to be followed by ReLU.
        **kwargs: Keyword arguments of every layer it makes.

    Returns:
        A `Norm`.

    Raises:
        ValueError: for an unknown name.

    Example:

    >>> import keras, keras_norm
    >>> norm = keras_norm.get("frn", epsilon=1e-5)
    >>> x = keras.Input((8, 8, 16))
    >>> y = norm.layer(x.shape, name="norm")(x)
    >>> type(norm.activation(name="act")).__name__
    'TLU'
    """
    if isinstance(identifier, Norm):
        norm = identifier
    elif callable(identifier):
        norm = Norm(
            getattr(identifier, "__name__", "custom"),
            lambda shape, axis, **options: identifier(axis=axis, **options),
            _relu,
        )
    elif identifier in _NORMS:
        norm = _NORMS[identifier]
    else:
        close = difflib.get_close_matches(str(identifier), names(), 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Unknown norm.{hint} There are: {', '.join(names())}. "
            f"Received: {identifier!r}"
        )
    return dataclasses.replace(norm, kwargs={**norm.kwargs, **kwargs})


def names():
    """The names that `get` knows, in the order of the documentation."""
    return list(_NORMS)


def _relu(axis=-1, **kwargs):
    return keras.layers.ReLU(**kwargs)


def _batch_norm(shape, **kwargs):
    return BatchNormalization(**{**BATCH_DEFAULTS, **kwargs})


def _eval_norm(shape, **kwargs):
    return EvalNorm(**{**BATCH_DEFAULTS, **kwargs})


def _rbn(shape, **kwargs):
    return RBN(**{**BATCH_DEFAULTS, **kwargs})


def _frn(shape, axis=-1, **kwargs):
    # With a fixed epsilon FRN is sign(x) there.
    learned = _has_one_value_a_plane(shape, axis)
    return FRN(axis=axis, **{"learned_epsilon": learned, **kwargs})


def _group_norm(shape, axis=-1, groups=32, **kwargs):
    """At most `groups` groups, as many as divide the channels."""
    groups = math.gcd(groups, shape[axis]) if groups > 0 else groups
    return keras.layers.GroupNormalization(groups=groups, axis=axis, **kwargs)


def _instance_norm(shape, axis=-1, **kwargs):
    if _has_one_value_a_plane(shape, axis):
        raise ValueError(
            "Instance normalization of one value a plane is 0 whatever the "
            "input: it needs positions, as in a feature map. "
            f"Received: shape={tuple(shape)}"
        )
    return keras.layers.GroupNormalization(groups=-1, axis=axis, **kwargs)


def _layer_norm(shape, axis=-1, **kwargs):
    # Over all positions and channels of a sample, as both papers compare with;
    # with one group, gamma and beta stay per channel and sizes may be unknown.
    return keras.layers.GroupNormalization(groups=1, axis=axis, **kwargs)


def _no_norm(shape, axis=-1, **kwargs):
    return keras.layers.Identity(**kwargs)


def _has_one_value_a_plane(shape, axis):
    channel_axis = axis % len(shape)
    return all(
        n == 1 for i, n in enumerate(shape) if i not in (0, channel_axis)
    )


_NORMS = {
    norm.name: norm
    for norm in (
        Norm("bn", _batch_norm, _relu),
        Norm("sync_bn", _batch_norm, _relu, {"synchronized": True}),
        Norm("brn", _batch_norm, _relu, RENORM_DEFAULTS),
        Norm("eval_norm", _eval_norm, _relu),
        Norm("gn", _group_norm, _relu),
        Norm("in", _instance_norm, _relu),
        Norm("ln", _layer_norm, _relu),
        Norm("frn", _frn, TLU),
        Norm("rbn", _rbn, _relu),
        Norm("none", _no_norm, _relu),
    )
}
