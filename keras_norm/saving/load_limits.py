"""Limits on what Keras does while it loads a file: weights made, calls tried.

A config of a few bytes can ask for weights of any size, and Keras makes them
before it reads the stored ones. `Variable` is the class of every weight on
every backend, and `deserialize_node` reads a call of a functional model, in
Keras 3.8 to 3.15.
"""

import contextlib
import functools
import math
import threading

import keras
from keras.src.backend.common.variables import Variable
from keras.src.models import functional

from keras_norm.errors import ConversionError

# What layers hold beside what they store, such as constants and states; and
# some are made twice, as the layer of a Bidirectional is.
MARGIN = 2**24
FACTOR = 2
MAX_TRIES = 10_000
MAX_TRIES_A_CALL = 100


@contextlib.contextmanager
def limit_loading(name, num_stored):
    """Limits what is built in this scope, by this thread.

    Args:
        name: What to call the file in an error.
        num_stored: How many values it stores.

    Raises:
        ConversionError: inside the scope, before more values are allocated
            than are stored, or when the calls of a graph lead nowhere.
    """
    thread = threading.get_ident()
    num_made = 0
    tried, num_tries = set(), 0

    def spend(shape):
        nonlocal num_made
        if threading.get_ident() != thread:
            return
        num_made += math.prod(n for n in shape if isinstance(n, int))
        if num_made > FACTOR * num_stored + MARGIN:
            raise ConversionError(
                f"{name} is refused: its layers have weights of {num_made:,} "
                f"values or more, and it stores {num_stored:,}; if you trust "
                "the file, allow it with unsafe=True (--unsafe)"
            )

    def create(self, initializer, shape=None, *args, **kwargs):
        with contextlib.suppress(TypeError):
            # A shape that is none is left for Keras to refuse.
            spend([shape] if isinstance(shape, int) else shape or ())
        return create.__wrapped__(self, initializer, shape, *args, **kwargs)

    def build(self, input_shape):
        # Spreads its mean over every axis that it keeps, outside any weight.
        with contextlib.suppress(AttributeError, IndexError, TypeError):
            axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
            spend([input_shape[axis] for axis in axes if axis is not None])
        return build.__wrapped__(self, input_shape)

    def read_call(node_data, created_layers):
        nonlocal num_tries
        if threading.get_ident() == thread:
            # A call whose inputs are not there yet is tried again, in Keras
            # 3.8 for ever.
            tried.add(id(node_data))
            num_tries += 1
            if num_tries > MAX_TRIES + MAX_TRIES_A_CALL * len(tried):
                raise ConversionError(
                    f"{name} is damaged: the calls of its layers form a loop, "
                    "or take tensors that no layer gives"
                )
        return read_call.__wrapped__(node_data, created_layers)

    with (
        _replaced(Variable, "__init__", create),
        _replaced(keras.layers.Normalization, "build", build),
        _replaced(functional, "deserialize_node", read_call),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner, name, function):
    """Wraps a function of a class or module for a while."""
    before = getattr(owner, name)
    setattr(owner, name, functools.wraps(before)(function))
    try:
        yield
    finally:
        setattr(owner, name, before)
