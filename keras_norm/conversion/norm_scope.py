"""Models born with another norm: for what no graph walk reaches."""

import contextlib
import contextvars
import functools
import threading

import keras

from keras_norm import fingerprint
from keras_norm.conversion import new_layer
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.layers.batch_norm import BatchNormalization
from keras_norm.layers.frozen_batch_norm import FrozenBatchNormalization

_STOCK = keras.layers.BatchNormalization
_active = contextvars.ContextVar("norm_scope", default=None)
_lock = threading.Lock()
_num_open = 0


class NormScope:
    """What an open `norm_scope` has done so far.

    Attributes:
        norm: The norm, as `replacement.standardize_norm` returns it.
        names: List of the names of the layers that it made.
    """

    def __init__(self, norm):
        self.norm = norm
        self.names = []

    @property
    def num_replaced(self):
        """How many batch normalizations it replaced."""
        return len(self.names)


@contextlib.contextmanager
def norm_scope(norm, **kwargs):
    """Inside, `keras.layers.BatchNormalization(...)` makes another norm.

    For models that are built from code: `keras.applications`, composite layers
    such as those of KerasHub, subclassed models. What `convert` cannot reach is
    born with the norm. Name, axis, dtype policy and the options that the norm
    shares with batch normalization are those that the code gives. Activations
    are the code's own: a ReLU after FRN stays a ReLU.

    Subclasses of `keras.layers.BatchNormalization` are left alone. The scope
    belongs to the thread that opened it; the innermost of several counts.

    Save and load: what lies in the graph of a Functional model is saved by its
    own class and loads everywhere. What lies inside composite layers or
    subclassed models loads inside the same scope, same arguments included;
    outside it, or inside another one, the load fails and names the layer.

    Args:
        norm: As in `keras_norm.convert`.
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
    """Keras' class asks the scope as long as one is open in any thread."""
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
    make = super(_STOCK, cls).__new__
    if scope is None or cls is not _STOCK:
        return make(cls, *args, **kwargs)
    token = _active.set(None)
    try:
        batch_norm = _STOCK(*args, **kwargs)
        layer = new_layer.make_layer(batch_norm, scope.norm)
    finally:
        _active.reset(token)
    if layer is None:
        return make(cls, *args, **kwargs)
    scope.names.append(layer.name)
    _mark(layer, batch_norm)
    return layer


def _mark(layer, batch_norm):
    """Makes a layer save its mark, and take no other layer's weights.

    A layer of another package would not know the mark where it loads by its own
    class, so it has one only if its weights could pass for the old layer's.
    """
    of_this_package = isinstance(layer, ChannelLayer)
    num_weights = 2 + batch_norm.center + batch_norm.scale
    # Batch normalization's own weights mean the same in these.
    takes_stock = isinstance(
        layer, (BatchNormalization, FrozenBatchNormalization)
    )
    save, load = layer.save_own_variables, layer.load_own_variables
    layer.save_own_variables = functools.partial(
        _save, layer, save, None if of_this_package else num_weights
    )
    layer.load_own_variables = functools.partial(
        _load, layer, load, of_this_package and not takes_stock
    )


def _save(layer, save, num_weights, store):
    save(store)
    if num_weights is None or len(layer.variables) == num_weights:
        fingerprint.write(layer, store)


def _load(layer, load, required, store):
    load(fingerprint.read(layer, store, required))
