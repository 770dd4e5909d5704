"""Values of variables, which are handed on as copies.

A variable may keep the very array that it is given. Under JAX `a.assign(b)`
leaves one buffer to both variables, and the first `fit` or `predict` that a
model of one of them runs donates it: for the other it is deleted. Under torch
a NumPy array and a tensor can be one memory. So a value that goes from one
variable to another, or from a variable to the user, goes through this module.
"""

import keras
import numpy as np


def read_copy(value):
    """A NumPy array that shares its memory with nothing.

    Args:
        value: A variable, a tensor, or an array.
    """
    if not isinstance(value, np.ndarray):
        value = keras.ops.convert_to_numpy(value)
    return np.array(value)


def assign_copy(variable, value):
    """Gives a variable a copy of a value, in the variable's own dtype.

    Args:
        variable: The `keras.Variable` to set.
        value: As in `read`, of the variable's shape.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    variable.assign(read_copy(value).astype(dtype, copy=False))


def copy_values(sources, targets):
    """Gives each variable a copy of the value of another, in their order.

    Args:
        sources: The variables to read.
        targets: As many variables of the same shapes.
    """
    for source, target in zip(sources, targets, strict=True):
        assign_copy(target, source)
