"""Limits on loading a file: the size of its weights and the calls of layers.

A config of a few bytes can ask for weights of any size, and Keras allocates
them before it reads the stored weights.
"""

import contextlib
import functools
import math
import threading

import keras

from keras_norm.errors import ConversionError
from keras_norm.saving import keras_internals

# Layers also allocate values that they do not store, such as constants and
# states, and some are created twice, such as the layer of a Bidirectional.
MARGIN = 2**24
FACTOR = 2
MAX_TRIES = 10_000
MAX_TRIES_PER_CALL = 100


@contextlib.contextmanager
def limit_loading(name, num_stored):
    """Limits the layers that this thread builds inside the scope.

    Args:
        name: Name of the file in errors.
        num_stored: Number of values that the file stores.

    Raises:
        ConversionError: inside the scope, before more values are allocated
            than are stored, or if the calls of a graph cannot be resolved.
    """
    thread = threading.get_ident()
    num_allocated = 0
    tried, num_tries = set(), 0

    def count(shape):
        nonlocal num_allocated
        if threading.get_ident() != thread:
            return
        num_allocated += math.prod(n for n in shape if isinstance(n, int))
        if num_allocated > FACTOR * num_stored + MARGIN:
            raise ConversionError(
                f"{name} is refused: its layers have {num_allocated:,} weights "
                f"or more, but it stores {num_stored:,}; if you trust the "
                "file, allow it with unsafe=True (--unsafe)"
            )

    def create(self, initializer, shape=None, *args, **kwargs):
        with contextlib.suppress(TypeError):
            # Keras itself refuses an invalid shape.
            count([shape] if isinstance(shape, int) else shape or ())
        return create.__wrapped__(self, initializer, shape, *args, **kwargs)

    def build(self, input_shape):
        # Broadcasts its mean over every axis that it keeps, outside weights.
        with contextlib.suppress(AttributeError, IndexError, TypeError):
            axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
            count([input_shape[axis] for axis in axes if axis is not None])
        return build.__wrapped__(self, input_shape)

    def read_call(node_data, created_layers):
        nonlocal num_tries
        if threading.get_ident() == thread:
            # A call whose inputs do not exist yet is tried again, in Keras 3.8
            # without end.
            tried.add(id(node_data))
            num_tries += 1
            if num_tries > MAX_TRIES + MAX_TRIES_PER_CALL * len(tried):
                raise ConversionError(
                    f"{name} is damaged: the calls of its layers form a loop, "
                    "or take tensors that no layer outputs"
                )
        return read_call.__wrapped__(node_data, created_layers)

    with (
        _replaced(keras_internals.Variable, "__init__", create),
        _replaced(keras.layers.Normalization, "build", build),
        _replaced(keras_internals.functional, "deserialize_node", read_call),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner, name, function):
    """Replaces a function of a class or module inside a scope."""
    before = getattr(owner, name)
    setattr(owner, name, functools.wraps(before)(function))
    try:
        yield
    finally:
        setattr(owner, name, before)
