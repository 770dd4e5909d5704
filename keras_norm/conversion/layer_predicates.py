"""Predicates on single operations: norm, activation, addition, identity."""

import math
import re

import keras

from keras_norm.layers.batch_norm import BatchNormalization

_STOCK = keras.layers.BatchNormalization
_RELUS = (keras.activations.relu, keras.ops.relu)
_CAPPED_RELUS = (keras.activations.relu6, keras.ops.relu6)
_ACTIVATION_LAYERS = (
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)
_IDENTITIES = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)


def is_batch_norm(operation):
    """Returns True for batch normalization of Keras or of this package.

    A subclass counts if it inherits `call`, and so computes the same.
    """
    cls = type(operation)
    return (isinstance(operation, _STOCK) and cls.call is _STOCK.call) or (
        isinstance(operation, BatchNormalization)
        and cls.call is BatchNormalization.call
    )


def is_other_batch_norm(operation):
    """Returns True for a batch normalization subclass that overrides `call`."""
    return isinstance(
        operation, (_STOCK, BatchNormalization)
    ) and not is_batch_norm(operation)


def relu_cap(operation):
    """Returns a ReLU's upper bound: infinity for `max(x, 0)`, 6 for ReLU6.

    Returns None for everything else, such as a ReLU with a slope or threshold.
    """
    if _has_relu_options(operation):
        if operation.negative_slope or operation.threshold:
            return None
        cap = operation.max_value
        return math.inf if cap is None else float(cap)
    if isinstance(operation, keras.layers.Activation):
        if operation.activation in _RELUS:
            return math.inf
        return 6.0 if operation.activation in _CAPPED_RELUS else None
    return {"relu": math.inf, "relu6": 6.0}.get(_bare_activation(operation))


def activation_name(operation):
    """Returns `"relu"`, `"silu"` and so on; None if not an activation."""
    cap = relu_cap(operation)
    if cap is not None:
        return "relu" if cap == math.inf else f"relu{cap:g}"
    if isinstance(operation, keras.layers.Activation):
        function = operation.activation
        if function is keras.activations.linear:
            return None
        return getattr(function, "__name__", type(function).__name__)
    if isinstance(operation, _ACTIVATION_LAYERS):
        return _snake_case(type(operation).__name__)
    if _has_relu_options(operation):
        return "leaky_relu" if operation.negative_slope else "threshold"
    return _bare_activation(operation)


def is_addition(operation, num_tensors):
    """Returns True if it adds branches, as at the end of a residual block.

    `x + 3`, as in a hand-written hard sigmoid, does not add branches.
    """
    adds = isinstance(operation, keras.layers.Add) or (
        _is_bare(operation) and type(operation).__name__ == "Add"
    )
    return adds and num_tensors > 1


def is_identity(operation):
    """Returns True if it returns its inputs at inference, up to rounding.

    Keras 3.8 records the cast of a layer's inputs. A cast to integers or
    booleans was written by a user, and is not an identity.
    """
    if _is_bare(operation) and type(operation).__name__ == "Cast":
        return keras.backend.is_float_dtype(operation.dtype)
    if isinstance(operation, keras.layers.Activation):
        return operation.activation is keras.activations.linear
    return type(operation) in _IDENTITIES


def _has_relu_options(operation):
    # `keras.activations.relu(x)` is an operation with the layer's options.
    return isinstance(operation, keras.layers.ReLU) or (
        _is_bare(operation) and type(operation).__name__ == "ReLU"
    )


def _bare_activation(operation):
    if not _is_bare(operation):
        return None
    name = _snake_case(type(operation).__name__)
    known = callable(getattr(keras.activations, name, None))
    return name if known and name != "linear" else None


def _is_bare(operation):
    return not isinstance(operation, keras.layers.Layer) and type(
        operation
    ).__module__.startswith("keras.")


def _snake_case(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
