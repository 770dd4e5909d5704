"""Calibrates a converted model on unlabeled examples."""

import time

import keras
import numpy as np
from keras import ops

from keras_norm.calibration import result as result_lib
from keras_norm.calibration.fit_layers import REFITS
from keras_norm.calibration.fit_layers import LayerFitting
from keras_norm.calibration.fit_layers import Options
from keras_norm.data.batches import make_batches
from keras_norm.errors import ConversionError
from keras_norm.graphs import graph
from keras_norm.graphs.program import inference
from keras_norm.graphs.program import peak_bytes

# Ridge penalty from 256 examples on, and for 25 examples or fewer; between,
# it is inversely proportional to their number.
RIDGE_STRENGTH = (1e-2, 1e-1)
# Limit of the activations of both models that are in memory at once.
MAX_BYTES = 2**32
# Limit of the examples: more improve nothing.
MAX_EXAMPLES = 4096
# Share of the examples that no layer is fitted to.
HELD_OUT = 1 / 8
BATCH_SIZE = 32


def check_options(refit, epsilon_ratio):
    """Raises a ConversionError for an invalid argument of `convert`."""
    if refit not in REFITS:
        raise ConversionError(
            f"`refit` must be one of {', '.join(map(repr, REFITS))}. "
            f"Received: refit={refit!r}"
        )
    is_number = isinstance(epsilon_ratio, int | float | np.number)
    if not is_number or not 0 <= epsilon_ratio < np.inf:
        raise ConversionError(
            "`epsilon_ratio` must be a finite number, at least 0. Received: "
            f"epsilon_ratio={epsilon_ratio!r}"
        )


def calibrate(model, converted, plan, operations, data, refit, epsilon_ratio):
    """Fits a converted model to the original model, without labels.

    Args:
        model: The original model.
        converted: The converted model, whose weights are changed.
        plan: The conversion's `Plan`.
        operations: Dict from the ids of the original operations to
            `(original, converted)`.
        data, refit, epsilon_ratio: As in `keras_norm.convert`.

    Returns:
        `CalibrationResult`.

    Raises:
        ConversionError: for data that does not fit the model, and fewer than
            two examples.
    """
    start = time.monotonic()
    arrays = _read_examples(model, data)
    num_read = _length(arrays)
    fitting = LayerFitting(model, plan, operations, None)
    arrays, memory_note = _limit_memory(fitting.program, arrays)
    fitted, held_out = _split(arrays)
    strength = np.clip(
        256 * RIDGE_STRENGTH[0] / _length(fitted), *RIDGE_STRENGTH
    )
    fitting.options = Options(refit, float(epsilon_ratio), float(strength))
    fits = [] if refit == "none" else fitting.run(_batches(fitted))
    warnings = result_lib.find_warnings(
        _length(fitted), fits, fitting.shifted, memory_note
    )
    return result_lib.CalibrationResult(
        num_read=num_read,
        num_fitted=_length(fitted),
        num_held_out=_length(held_out),
        refit=refit,
        seconds=time.monotonic() - start,
        layers=fits,
        agreements=_compare(model, converted, held_out),
        warnings=warnings,
    )


def _read_examples(model, data):
    """Returns an array for each input, with at most `MAX_EXAMPLES` examples."""
    found, num_examples = [], 0
    for arrays in make_batches(model, data):
        found.append(arrays)
        num_examples += _length(arrays)
        if num_examples >= MAX_EXAMPLES:
            break
    if num_examples < 2:
        raise ConversionError(
            "Calibration needs examples, better 256 than 64 of them, as the "
            f"model saw them in training. Received: {num_examples}"
        )
    return [
        None if each[0] is None else np.concatenate(each)[:MAX_EXAMPLES]
        for each in zip(*found, strict=True)
    ]


def _limit_memory(program, arrays):
    """Returns as many examples as fit into memory, and a note if not all do."""
    num_examples = _length(arrays)
    # Both models hold their activations.
    size = 2 * peak_bytes(program, _take(arrays, slice(0, 1)))
    limit = max(int(MAX_BYTES / max(size, 1)), 2)
    if limit >= num_examples:
        return arrays, None
    note = (
        f"Only {limit} of {num_examples} examples were used: one takes "
        f"{size / 2**20:.0f} MiB, and activations may take "
        f"{MAX_BYTES / 2**30:g} GiB."
    )
    chosen = np.random.default_rng(1).permutation(num_examples)[:limit]
    return _take(arrays, chosen), note


def _split(arrays):
    """Returns the examples to fit the layers to, and those held out."""
    num_examples = _length(arrays)
    order = np.random.default_rng(0).permutation(num_examples)
    num_held_out = max(1, int(num_examples * HELD_OUT))
    return (
        _take(arrays, order[num_held_out:]),
        _take(arrays, order[:num_held_out]),
    )


def _batches(arrays):
    return [
        _take(arrays, slice(start, start + BATCH_SIZE))
        for start in range(0, _length(arrays), BATCH_SIZE)
    ]


def _take(arrays, indices):
    return [None if array is None else array[indices] for array in arrays]


def _length(arrays):
    return next(len(array) for array in arrays if array is not None)


def _compare(model, converted, arrays):
    """Returns an `OutputAgreement` for each output of the models."""
    expected, got = (
        _outputs(each, _batches(arrays)) for each in (model, converted)
    )
    names = [tensor.name for tensor in graph.flat_outputs(model)]
    return [
        result_lib.measure_agreement(name, old, new)
        for name, old, new in zip(names, expected, got, strict=True)
    ]


def _outputs(model, batches):
    structure = graph.inputs(model)
    results = []
    for arrays in batches:
        inputs = keras.tree.pack_sequence_as(structure, arrays)
        with inference():
            results.append(keras.tree.flatten(model(inputs, training=False)))
    return [
        np.concatenate(
            [
                ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")
                for x in each
            ]
        )
        for each in zip(*results, strict=True)
    ]
