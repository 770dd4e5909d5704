"""Examples for calibration, as batches for each input of a model."""

import keras
import numpy as np
from keras import ops

from keras_norm.conversion import graph
from keras_norm.errors import ConversionError

BATCH_SIZE = 32
# Below this number nothing is left to compare the models on.
MIN_EXAMPLES = 2
# Share of the examples that no layer is fitted to.
HELD_OUT = 1 / 8


def read_examples(model, data):
    """Returns an array for each input of a model.

    Args:
        model: Graph model.
        data: Array, list of numbers, or arrays in the nested structure of the
            model's inputs. A pair of an array and labels for a model with one
            input: the labels are ignored.

    Returns:
        `(arrays, notes)`: a flat list of NumPy arrays of the same length, and
        remarks for the report.

    Raises:
        ConversionError: for no data or a single example, arrays of another
            structure or shape, and NaN or infinity.
    """
    symbolic = keras.tree.flatten(graph.inputs(model))
    notes = []
    if isinstance(data, tuple) and len(data) > len(symbolic) == 1:
        data = data[0]
        notes.append("Labels in `data` were ignored.")
    if len(symbolic) == 1 and not isinstance(data, dict):
        # A list of numbers is an array, not a list of inputs.
        arrays = [data]
        if isinstance(data, list | tuple) and len(data) == 1:
            inner = data[0]
            if np.ndim(inner) == len(symbolic[0].shape):
                arrays = [inner]
    else:
        arrays = _by_input(model, data)
    arrays = [
        _read_array(array, tensor)
        for array, tensor in zip(arrays, symbolic, strict=True)
    ]
    lengths = {len(array) for array in arrays}
    if len(lengths) > 1:
        raise ConversionError(
            "`data` must have as many examples for every input. Received: "
            f"lengths {', '.join(str(len(array)) for array in arrays)}"
        )
    if min(lengths) < MIN_EXAMPLES:
        raise ConversionError(
            "Calibration needs examples, 64 or better 256 of them, as the "
            f"model saw them in training. Received: {min(lengths)}"
        )
    return arrays, notes


def split_examples(arrays, seed=0):
    """Returns `(fitted, held_out)`: lists of arrays, in a random order."""
    num_examples = len(arrays[0])
    order = np.random.default_rng(seed).permutation(num_examples)
    num_held_out = max(1, int(num_examples * HELD_OUT))
    held_out, fitted = order[:num_held_out], order[num_held_out:]
    return [x[fitted] for x in arrays], [x[held_out] for x in arrays]


def make_batches(model, arrays):
    """Returns a list of tensors for each input, in the input's dtype."""
    symbolic = keras.tree.flatten(graph.inputs(model))
    return [
        [
            ops.convert_to_tensor(
                array[start : start + BATCH_SIZE],
                dtype=keras.backend.standardize_dtype(tensor.dtype),
            )
            for start in range(0, len(array), BATCH_SIZE)
        ]
        for array, tensor in zip(arrays, symbolic, strict=True)
    ]


def _by_input(model, data):
    """Returns the arrays of a model with several inputs, in a flat list."""
    structure = graph.inputs(model)
    names = [x.name for x in keras.tree.flatten(structure)]
    if isinstance(structure, dict) and isinstance(data, dict):
        if set(structure) <= set(data):
            data = {name: np.asarray(data[name]) for name in structure}
            return keras.tree.flatten(data)
    elif isinstance(structure, list | tuple) and isinstance(data, list | tuple):
        if len(data) == len(names):
            return list(data)
    received = sorted(data) if isinstance(data, dict) else type(data).__name__
    raise ConversionError(
        "`data` must have an array for each input of the model, in the "
        f"structure of its inputs: {', '.join(names)}. Received: {received}"
    )


def _read_array(array, tensor):
    try:
        array = np.asarray(
            array if not ops.is_tensor(array) else ops.convert_to_numpy(array)
        )
        kind = array.dtype.kind
    except ValueError as error:
        raise ConversionError(
            f"`data` is not an array: {error}. Received: {type(array).__name__}"
        ) from error
    wanted = tuple(tensor.shape)
    if kind not in "fiub":
        raise ConversionError(
            f"`data` must hold numbers. Received: dtype={array.dtype}"
        )
    if array.ndim == len(wanted) - 1 and wanted[-1] == 1:
        # As Keras does, (N, H, W) is taken for (N, H, W, 1).
        array = array[..., None]
    fits = array.ndim == len(wanted) and all(
        expected in (None, size)
        for expected, size in zip(wanted[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise ConversionError(
            f"`data` must have the shape of the input {tensor.name!r}, "
            f"{wanted}. Received: shape={array.shape}"
        )
    finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if not finite.all():
        raise ConversionError(
            "`data` holds NaN or infinity. Received: "
            f"{np.count_nonzero(~finite)} of {len(array)} examples, the first "
            f"at index {np.argmin(finite)}"
        )
    return array
