"""Scope in which Keras builds models with another norm."""

import contextlib
import contextvars
import functools
import threading

import keras

from keras_norm import fingerprint
from keras_norm.conversion import new_layer
from keras_norm.layers._channel_layer import ChannelLayer

_STOCK = keras.layers.BatchNormalization
# The hook is on Keras' class, so it belongs to the process. The count keeps it
# until the last scope of any thread is closed.
_active = contextvars.ContextVar("norm_scope", default=None)
_lock = threading.Lock()
_num_open = 0


class NormScope:
    """Layers that an open `norm_scope` has replaced.

    Attributes:
        norm: The norm, the result of `new_layer.standardize_norm`.
        names: List of the names of the new layers.
    """

    def __init__(self, norm):
        self.norm = norm
        self.names = []

    @property
    def num_replaced(self):
        """Number of batch normalizations that were replaced."""
        return len(self.names)


@contextlib.contextmanager
def norm_scope(norm, **kwargs):
    """Makes `keras.layers.BatchNormalization(...)` create another norm.

    Use it for models that are built from code: `keras.applications`, composite
    layers such as those of KerasHub, and subclassed models, whose layers
    `convert` cannot reach. Name, axis, dtype policy and the options that the
    norm shares with batch normalization are taken from the code. Activations
    are not changed: a ReLU after FRN is still a ReLU.

    Subclasses of `keras.layers.BatchNormalization` are not replaced. The scope
    applies to the thread that opened it; the innermost scope takes precedence.

    Saving and loading: a layer in the graph of a Functional model is saved
    under its own class and loads anywhere. A layer inside a composite layer or
    a subclassed model loads inside a scope with the same norm and arguments;
    anywhere else, loading fails and names the layer.

    Args:
        norm: The norm, see `keras_norm.convert`.
        **kwargs: Arguments of every new layer.

    Yields:
        A `NormScope`, with `num_replaced` and `names`.

    Raises:
        ConversionError: for an unknown norm, or arguments that do not fit.

    Example:

    >>> import keras, keras_norm
    >>> with keras_norm.norm_scope("gn", groups=8) as scope:
    ...     model = keras.applications.MobileNetV2(weights=None)
    >>> scope.num_replaced, type(model.get_layer("Conv1_relu")).__name__
    (52, 'ReLU')
    >>> type(model.get_layer("bn_Conv1")).__name__
    'GroupNormalization'
    """
    scope = NormScope(new_layer.standardize_norm(norm, kwargs))
    with _hooked():
        token = _active.set(scope)
        try:
            yield scope
        finally:
            _active.reset(token)


@contextlib.contextmanager
def _hooked():
    """Hooks Keras' class while a scope is open in any thread."""
    global _num_open
    with _lock:
        if _num_open == 0:
            _STOCK.__new__ = staticmethod(_new)
        _num_open += 1
    try:
        yield
    finally:
        with _lock:
            _num_open -= 1
            if _num_open == 0:
                del _STOCK.__new__


def _new(cls, *args, **kwargs):
    scope = _active.get()
    new_object = super(_STOCK, cls).__new__
    if scope is None or cls is not _STOCK:
        return new_object(cls, *args, **kwargs)
    token = _active.set(None)
    try:
        batch_norm = _STOCK(*args, **kwargs)
        layer = new_layer.make_layer(batch_norm, scope.norm)
    finally:
        _active.reset(token)
    if layer is None:
        return new_object(cls, *args, **kwargs)
    scope.names.append(layer.name)
    _add_fingerprint(layer, batch_norm)
    return layer


def _add_fingerprint(layer, batch_norm):
    """Makes a layer save its fingerprint, and refuse another layer's weights.

    A layer of another package, loaded by its own class, does not know about the
    fingerprint: it gets one only if its weights could be mistaken for the
    weights of the old layer.
    """
    is_package_layer = isinstance(layer, ChannelLayer)
    num_weights = 2 + batch_norm.center + batch_norm.scale
    # Weights of batch normalization have the same meaning in these layers.
    takes_stock = getattr(layer, "infers_as_batch_norm", False)
    save, load = layer.save_own_variables, layer.load_own_variables
    layer.save_own_variables = functools.partial(
        _save, layer, save, None if is_package_layer else num_weights
    )
    layer.load_own_variables = functools.partial(
        _load, layer, load, is_package_layer and not takes_stock
    )


def _save(layer, save, num_weights, store):
    save(store)
    if num_weights is None or len(layer.variables) == num_weights:
        fingerprint.write_fingerprint(layer, store)


def _load(layer, load, required, store):
    load(fingerprint.read_without_fingerprint(layer, store, required))
