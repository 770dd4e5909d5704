"""Finds a model's inputs in arrays and in elements of a dataset."""

import contextlib
import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.errors import printable
from keras_norm.graphs import graph


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The arrays of a batch that was read and checked before."""

    arrays: list


def find_arrays(model, data):
    """Returns the arrays of the model's inputs, or None for batches.

    Args:
        model: The graph model.
        data: An array, a nested list of numbers, or a list, tuple or dict of
            these with one for each input, or a tuple `(x, y)` or
            `(x, y, sample_weight)` of which `x` has one for each input.
    """
    if isinstance(data, Mapping):
        return _by_name(model, data)
    if not isinstance(data, list | tuple):
        is_array = hasattr(data, "shape") and hasattr(data, "dtype")
        return [data] if is_array else None
    if _fits(model, data):
        return _flatten(model, data)
    if (
        isinstance(data, tuple)
        and len(data) in (2, 3)
        and _fits(model, data[0])
    ):
        return _flatten(model, data[0])
    return None


def has_labels(model, data):
    """Returns True if data is known to have labels behind the inputs.

    Args:
        model: The graph model.
        data: As for `find_arrays`, or a `tf.data.Dataset`.
    """
    spec = getattr(data, "element_spec", data)
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        return False
    if spec is data:
        return not _fits(model, data) and _fits(model, data[0])
    # A tuple of one element for each input is the inputs alone.
    return len(graph.flat_inputs(model)) != len(spec)


def read_element(model, element, number):
    """Returns the checked arrays of one element of a dataset.

    Args:
        model: The graph model.
        element: `x`, `(x, y)` or `(x, y, sample_weight)`.
        number: Index of the element.
    """
    if isinstance(element, Inputs):
        return element.arrays
    if isinstance(element, list | tuple):
        is_all = _fits(model, element) and len(graph.flat_inputs(model)) > 1
        if not is_all and not _is_numeric(element):
            if not element:
                raise ConversionError(f"Batch {number} of `data` is empty.")
            element = element[0]
    if isinstance(element, Mapping):
        return check_batch(model, _by_name(model, element), number)
    return check_batch(model, _flatten(model, element), number)


def check_batch(model, arrays, number):
    """Returns the arrays in the dtypes and ranks of the model's inputs.

    Args:
        model: The graph model.
        arrays: List of values.
        number: Index of the batch, or None for all of the data.

    Raises:
        ConversionError: for another number of inputs, for shapes that do not
            fit, for no examples, and for NaN or infinity.
    """
    symbolic = graph.flat_inputs(model)
    where = "" if number is None else f" in batch {number}"
    if len(arrays) != len(symbolic):
        names = ", ".join(repr(x.name) for x in symbolic)
        raise ConversionError(
            f"The model has {len(symbolic)} inputs, {names}. "
            f"Received: {len(arrays)} arrays{where}"
        )
    checked = [
        _check(x, array, where)
        for x, array in zip(symbolic, arrays, strict=True)
    ]
    lengths = {len(array) for array in checked if array is not None}
    if len(lengths) != 1 or not all(lengths):
        problem = (
            "The inputs have different numbers of examples"
            if len(lengths) > 1
            else "`data` has no examples"
        )
        shapes = [None if x is None else x.shape for x in checked]
        raise ConversionError(f"{problem}{where}. Received: shapes {shapes}")
    return checked


def take(arrays, indices):
    """Returns some examples of arrays; an optional input may be None."""
    return [None if array is None else array[indices] for array in arrays]


def join(batches):
    """Returns the arrays of several batches as one batch."""
    if len(batches) == 1:
        return batches[0]
    return [
        None if column[0] is None else np.concatenate(column)
        for column in zip(*batches, strict=True)
    ]


def batch_length(arrays):
    """Returns the number of examples in a list of arrays."""
    return next(len(array) for array in arrays if array is not None)


def _check(symbolic, value, where):
    """Returns a value as an array that fits a symbolic input."""
    name = printable(symbolic.name)
    if value is None:
        node, _ = graph.producing_node(symbolic)
        if getattr(graph.operation(node), "optional", False):
            return None
        raise ConversionError(f"`data` lacks the input {name!r}{where}.")
    array = _fit_rank(_to_array(value, name, where), symbolic.shape)
    if not _fits_shape(array.shape, symbolic.shape):
        hint = ""
        if _fits_shape((None, *array.shape), symbolic.shape):
            hint = " It lacks the batch axis: batch the data first."
        raise ConversionError(
            f"`data` has the wrong shape for the input {name!r}{where}: the "
            f"model takes {tuple(symbolic.shape)}.{hint} "
            f"Received: shape={array.shape}"
        )
    if array.dtype.kind in "fc" or array.dtype.name == "bfloat16":
        bad = ~np.isfinite(array)
        if bad.any():
            first = np.argwhere(bad)[0]
            raise ConversionError(
                f"`data` has NaN or infinity in the input {name!r}{where}: "
                f"{bad.sum()} of {bad.size} values. Remove or fix these "
                f"examples. Received: {array[tuple(first)]} at example "
                f"{first[0]}"
            )
    return array


def _to_array(value, name, where):
    with contextlib.suppress(AttributeError):
        # A torch tensor that is on a GPU or has a gradient.
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ConversionError(
            f"The input {name!r}{where} cannot be read as an array: "
            f"{one_line(error)[:200]}. Received: {type(value).__name__}"
        ) from error
    if array.dtype == object and array.size:
        # pandas and TensorFlow give text as objects.
        for kind in (str, bytes):
            if all(isinstance(item, kind) for item in array.flat):
                array = array.astype(kind)
    is_number = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    if not is_number and array.dtype.kind not in "SUT":
        raise ConversionError(
            f"The input {name!r}{where} must be an array of numbers. "
            f"Received: {type(value).__name__}, dtype={array.dtype}"
        )
    return array


def _fit_rank(array, shape):
    """Adds or removes a last axis of size 1, as Keras does."""
    if array.ndim == len(shape) - 1 and shape[-1] == 1:
        expanded = array[..., None]
        return expanded if _fits_shape(expanded.shape, shape) else array
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        return array[..., 0]
    return array


def _fits_shape(shape, wanted):
    return len(shape) == len(wanted) and all(
        other is None or size is None or size == other
        for size, other in zip(shape[1:], wanted[1:], strict=True)
    )


def _fits(model, structure):
    """Returns True if a structure has an array of the rank of each input."""
    symbolic = graph.flat_inputs(model)
    if isinstance(structure, Mapping):
        return len(structure) == len(symbolic)
    if len(symbolic) == 1 and not _is_wrapped(structure):
        leaves = [structure]
    elif isinstance(structure, list | tuple):
        leaves = list(structure)
    else:
        return False
    return len(leaves) == len(symbolic) and all(
        leaf is None or _fits_shape(_shape_for(leaf, x), x.shape)
        for leaf, x in zip(leaves, symbolic, strict=True)
    )


def _is_wrapped(structure):
    """Returns True for a list with one array."""
    return (
        isinstance(structure, list | tuple)
        and len(structure) == 1
        and hasattr(structure[0], "shape")
        and hasattr(structure[0], "dtype")
    )


def _shape_for(leaf, symbolic):
    shape = getattr(leaf, "shape", None)
    if shape is None:
        try:
            shape = np.shape(leaf)
        except (ValueError, TypeError):  # Of different lengths.
            return ()
    shape = tuple(shape)
    if len(shape) == len(symbolic.shape) - 1 and symbolic.shape[-1] == 1:
        return (*shape, 1)
    if len(shape) == len(symbolic.shape) + 1 and shape[-1] == 1:
        return shape[:-1]
    return shape


def _is_numeric(structure):
    """Returns True for a nested list of numbers."""
    leaf = structure
    while isinstance(leaf, list | tuple) and leaf:
        leaf = leaf[0]
    return isinstance(leaf, int | float | np.number)


def _flatten(model, structure):
    symbolic = graph.flat_inputs(model)
    if isinstance(structure, Mapping):
        return _by_name(model, structure)
    if len(symbolic) == 1 and not _is_wrapped(structure):
        return [structure]
    if isinstance(structure, list | tuple):
        return list(structure)
    return [structure]


def _by_name(model, arrays):
    """Returns the values of a dict in the order of the model's inputs."""
    struct, symbolic = graph.inputs(model), graph.flat_inputs(model)
    if isinstance(struct, Mapping) and set(struct) <= set(arrays):
        return keras.tree.flatten({key: arrays[key] for key in struct})
    names = [x.name for x in symbolic]
    if set(names) <= set(arrays):
        return [arrays[name] for name in names]
    if len(names) == len(arrays) == 1:
        return list(arrays.values())
    wanted = sorted(struct) if isinstance(struct, Mapping) else names
    raise ConversionError(
        f"`data` must have an array for each input of the model, "
        f"{', '.join(map(repr, wanted))}. "
        f"Received: {', '.join(map(repr, arrays))}"
    )
