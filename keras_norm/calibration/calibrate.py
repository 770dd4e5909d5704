"""Calibrates a converted model on unlabeled examples."""

import time

import keras
import numpy as np
from keras import ops

from keras_norm.calibration import images
from keras_norm.calibration import result as result_lib
from keras_norm.calibration.fit_layers import REFITS
from keras_norm.calibration.fit_layers import LayerFitting
from keras_norm.calibration.pairs import run_operation
from keras_norm.conversion import graph
from keras_norm.errors import ConversionError

# Ridge penalty from 256 examples on, and for 25 examples or fewer; between,
# it is inversely proportional to their number.
RIDGE_STRENGTH = (1e-2, 1e-1)


def check_options(refit, epsilon_ratio):
    """Raises a ConversionError for an invalid argument of `convert`."""
    if refit not in REFITS:
        raise ConversionError(
            f"`refit` must be one of {', '.join(map(repr, REFITS))}. "
            f"Received: refit={refit!r}"
        )
    is_number = isinstance(epsilon_ratio, int | float)
    if not is_number or not 0 <= epsilon_ratio < np.inf:
        raise ConversionError(
            "`epsilon_ratio` must be a finite number, at least 0. Received: "
            f"epsilon_ratio={epsilon_ratio!r}"
        )


def calibrate(model, converted, plan, operations, arrays, refit, epsilon_ratio):
    """Fits a converted model to the original model, without labels.

    Args:
        model: The original model.
        converted: The converted model, whose weights are changed.
        plan: The conversion's `Plan`.
        operations: Dict from the ids of the original operations to
            `(original, converted)`.
        arrays: List with an array for each input.
        refit: `"none"`, `"affine"`, `"next"` or `"all"`.
        epsilon_ratio: Float, FRN's epsilon relative to the mean square of a
            channel's input.

    Returns:
        `CalibrationResult`.
    """
    start = time.monotonic()
    fitted, held_out = images.split_examples(arrays)
    num_fitted = len(fitted[0])
    strength = np.clip(256 * RIDGE_STRENGTH[0] / num_fitted, *RIDGE_STRENGTH)
    fitting = LayerFitting(
        model, plan, operations, refit, epsilon_ratio, float(strength)
    )
    fits = []
    if refit != "none":
        fits = fitting.run(images.make_batches(model, fitted))
    agreements = _compare(model, converted, held_out)
    return result_lib.CalibrationResult(
        num_fitted=num_fitted,
        num_held_out=len(held_out[0]),
        refit=refit,
        seconds=time.monotonic() - start,
        layers=fits,
        agreements=agreements,
        warnings=result_lib.find_warnings(num_fitted, fits, fitting.shifted),
    )


def _compare(model, converted, arrays):
    """Returns an `OutputAgreement` for each output of the models."""
    expected, got = (
        _outputs(each, images.make_batches(model, arrays))
        for each in (model, converted)
    )
    names = [tensor.name for tensor in graph.flat_outputs(model)]
    return [
        _agreement(name, old, new)
        for name, old, new in zip(names, expected, got, strict=True)
    ]


def _outputs(model, batches):
    structure = graph.inputs(model)
    results = []
    for inputs in zip(*batches, strict=True):
        packed = keras.tree.pack_sequence_as(structure, list(inputs))
        results.append(run_operation(model, (packed,), {}))
    return [
        np.concatenate(
            [
                ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")
                for x in each
            ]
        )
        for each in zip(*results, strict=True)
    ]


def _agreement(name, old, new):
    same_class = None
    if old.ndim == 2 and old.shape[1] > 1:
        same = old.argmax(axis=1) == new.argmax(axis=1)
        same_class = float(same.mean())
    error = np.mean((new - old) ** 2)
    variance = np.mean((old - old.mean(axis=0)) ** 2)
    if variance == 0:
        variance = np.mean(old**2) or 1.0
    return result_lib.OutputAgreement(name, same_class, float(error / variance))
