"""Private names of Keras, TensorFlow and torch that layers depend on.

Layers cannot import `keras_norm.graphs.graph`, which has the private names
that a conversion depends on: conversion imports layers.
`tests/test_keras_internals.py` asserts that every name still exists.
"""

import sys

import keras
from keras.src.backend import get_keras_mask as _get_keras_mask
from keras.src.backend import set_keras_mask as _set_keras_mask

# Functions that call a layer again in the backward pass: the end of the path
# of their file, and their name. Seen in TensorFlow 2.16 to 2.21, torch 2.13.
RECOMPUTING_FUNCTIONS = (
    ("tensorflow/python/ops/custom_gradient.py", "inner_recompute_grad"),
    ("torch/utils/checkpoint.py", "recompute_fn"),
)


def all_layers(layer):
    """Returns a layer or model and all layers inside it, outer ones first.

    Uses `Layer._flatten_layers`, seen in Keras 3.8 to 3.15.
    """
    return list(layer._flatten_layers())


def inner_layers(layer):
    """Returns the layers inside a layer, at any depth; [] for an operation.

    Uses `Layer._flatten_layers`, seen in Keras 3.8 to 3.15.
    """
    if not isinstance(layer, keras.layers.Layer):
        return []
    return list(layer._flatten_layers(include_self=False))


def direct_layers(layer):
    """Returns the layers directly inside a layer or model.

    Uses `Layer._flatten_layers`, seen in Keras 3.8 to 3.15.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def get_mask(tensor):
    """Returns the mask that a tensor carries, or None.

    Uses `get_keras_mask`, seen in Keras 3.8 to 3.15.
    """
    return _get_keras_mask(tensor)


def set_mask(tensor, mask):
    """Makes a tensor carry a mask.

    Uses `set_keras_mask`, seen in Keras 3.8 to 3.15.
    """
    _set_keras_mask(tensor, mask)


def is_recomputing_caller():
    """Returns True if a function that recomputes a layer is on the call stack.

    `keras.remat`, `tf.recompute_grad` and `torch.utils.checkpoint` call a layer
    in the same way both times; only the call stack tells the calls apart.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        for path, name in RECOMPUTING_FUNCTIONS:
            if code.co_name == name and code.co_filename.endswith(path):
                return True
        frame = frame.f_back
    return False


def is_compiled_for_cpu(tensor):
    """Returns True if XLA compiles for a CPU. Matters to speed only.

    Uses `GraphOrParentsInXlaContext`, seen in TensorFlow 2.16 to 2.21.

    Args:
        tensor: Tensor of the function that may be compiled.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        is_traced = isinstance(tensor, jax.core.Tracer)
        return is_traced and jax.default_backend() == "cpu"
    if backend != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops import control_flow_util
    except ImportError:
        return False
    graph = tf.compat.v1.get_default_graph()
    is_xla = control_flow_util.GraphOrParentsInXlaContext(graph)
    return is_xla and not tf.config.list_logical_devices("GPU")
