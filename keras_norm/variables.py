"""Reads and assigns variables by copy.

A variable may keep the very array that it is assigned. Under JAX,
`a.assign(b)` makes both variables refer to one buffer, and the first `fit` or
`predict` of a model that owns one of them donates it: the other variable is
then deleted. Under torch, a NumPy array and a tensor can share memory. So every
value that moves between variables, or from a variable to the user, is copied
by this module.
"""

import keras
import numpy as np


def read_copy(value):
    """Returns a NumPy array that shares no memory with its source.

    Args:
        value: A variable, a tensor, or an array.
    """
    if not isinstance(value, np.ndarray):
        value = keras.ops.convert_to_numpy(value)
    return np.array(value)


def assign_copy(variable, value):
    """Assigns a copy of a value to a variable, in the variable's dtype.

    Args:
        variable: The `keras.Variable` to set.
        value: A variable, a tensor, or an array of the variable's shape.
    """
    dtype = keras.backend.standardize_dtype(variable.dtype)
    variable.assign(read_copy(value).astype(dtype, copy=False))


def copy_values(sources, targets):
    """Copies the values of variables to other variables, in order.

    Args:
        sources: The variables to read.
        targets: As many variables of the same shapes.
    """
    for source, target in zip(sources, targets, strict=True):
        assign_copy(target, source)
