"""Verifies a conversion: compares the outputs of both models."""

import contextlib
import math
import os
import tempfile

import keras
import numpy as np
from keras import ops

from keras_norm import _keras_internals
from keras_norm.conversion import invalid_weights
from keras_norm.conversion.entries import Comparison
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph
from keras_norm.saving import load

# Sizes to try for unknown heights, widths and lengths.
SIZES = (32, 64, 96, 128, 224, 331)
NUM_SAMPLES = 2
# Largest difference of equivalent models, relative to the largest output.
FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2
# Maximum size of one tensor.
MAX_BYTES = 2**32


def verify_conversion(source, converted, report, inputs=None, invalid=None):
    """Compares the outputs of both models on random and on given inputs.

    Args:
        source: The model that was converted.
        converted: The new model.
        report: The `ConversionReport`, to which the comparisons are added.
        inputs: Optional arrays, in the nested structure of the models' inputs.
        invalid: List of the source's `InvalidWeight`; None to look for them.

    Raises:
        ConversionError: if the outputs differ although the report says that
            the models are numerically equivalent, if weights or outputs are NaN
            or infinite, or if the models cannot be called.
    """
    if invalid is None:
        invalid = invalid_weights.find_invalid_weights(source)
    if invalid:
        description = invalid_weights.describe_invalid_weights(invalid)
        raise ConversionError(
            f"{source.name!r} cannot be verified: {description}"
        )
    _check_sizes(source, NUM_SAMPLES if inputs is None else _length(inputs))
    named = {"random": random_inputs(source)}
    if inputs is not None:
        named["given"] = inputs
    for name, batch in named.items():
        try:
            comparison = compare_outputs(source, converted, name, batch)
        except ConversionError as error:
            if name == "random" and inputs is not None:
                report.notes.append(f"Not compared on random inputs: {error}")
                continue
            raise
        except Exception as error:
            raise ConversionError(
                f"{source.name!r} cannot be called on the {name} inputs: "
                f"{one_line(error)}"
            ) from error
        report.comparisons.append(comparison)
        _require_equivalence(source, report, comparison)


def compare_outputs(source, converted, name, inputs):
    """Returns the `Comparison` of two models' outputs, at inference.

    Raises:
        ConversionError: if outputs are NaN or infinite, which cannot be
            compared.
    """
    expected, got = (
        _finite_outputs(model, role, name, inputs)
        for model, role in (
            (source, "the model"),
            (converted, "the new model"),
        )
    )
    largest = relative = 0.0
    for old, new in zip(expected, got, strict=True):
        if np.array_equal(old, new):
            continue
        difference = np.max(np.abs(new - old))
        scale = np.max(np.abs(old))
        largest = max(largest, float(difference))
        relative = max(relative, float(difference / scale) if scale else np.inf)
    return Comparison(name, _length(inputs), largest, relative)


def compare_saved(model):
    """Returns the `Comparison` of a model with what a file of it contains.

    Raises:
        ConversionError: if the model cannot be saved and loaded, or if the
            outputs differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        load.save_model(model, path)
        # If it contains code, that code runs in this process already.
        saved, _ = load.load_model(path, unsafe=True)
    comparison = compare_outputs(model, saved, "random", random_inputs(model))
    if comparison.relative > FLOAT32_TOLERANCE:
        raise ConversionError(
            f"{model.name!r} has other outputs after it is saved and loaded. "
            f"Received: a difference of {comparison.largest:.1e}"
        )
    return comparison


def _length(inputs):
    shape = np.shape(
        next(x for x in keras.tree.flatten(inputs) if x is not None)
    )
    return shape[0] if shape else 1


def _check_sizes(model, num_samples):
    """Raises an error for tensors too large to compute, before computing."""
    tensors = keras.tree.flatten(graph.inputs(model))
    for node in graph.all_nodes(model):
        tensors += graph.output_tensors(node)
    for tensor in tensors:
        _check_size(tensor.name, (num_samples, *tensor.shape[1:]), tensor.dtype)


def _check_size(name, shape, dtype):
    """Raises an error if a tensor of this shape is too large to compute."""
    if None in shape:
        return
    itemsize = np.dtype("float32").itemsize
    with contextlib.suppress(TypeError):
        # NumPy has no bfloat16.
        itemsize = np.dtype(keras.backend.standardize_dtype(dtype)).itemsize
    num_bytes = math.prod(shape) * itemsize
    if num_bytes > MAX_BYTES:
        raise ConversionError(
            f"The model is too large to be verified: {name!r} takes "
            f"{num_bytes / 2**30:.1f} GiB for {shape[0]} samples. Pass fewer "
            "`inputs` (--inputs), or convert without verifying. "
            f"Received: shape={shape}"
        )


def _finite_outputs(model, role, name, inputs):
    """Returns a model's outputs; raises an error if they are not finite."""
    outputs = _call(model, inputs)
    for output in outputs:
        bad = output[~np.isfinite(output)]
        if bad.size:
            raise ConversionError(
                f"On {name} inputs {bad.size} of {output.size} outputs of "
                f"{role} {model.name!r} are not finite"
                f"{_first_nonfinite(model, inputs)}: pass other `inputs`, "
                f"or convert without verifying. Received: {bad[0]:g}"
            )
    return outputs


def _first_nonfinite(model, inputs):
    """Describes the first operation whose outputs are not finite."""
    calls = [
        (graph.operation(node), tensor)
        for node in graph.all_nodes(model)
        for tensor in graph.output_tensors(node)
    ]
    function = keras.Function(
        graph.inputs(model), [tensor for _, tensor in calls]
    )
    try:
        outputs = _call(function, inputs)
    except Exception:
        # A model accepts its inputs in more forms than a bare function.
        return ""
    for (operation, tensor), output in zip(calls, outputs, strict=True):
        if not np.all(np.isfinite(output)):
            return f", first in {operation.name!r} ({tensor.dtype})"
    return ""


def _require_equivalence(source, report, comparison):
    if report.function == "changed":
        return
    half = any(
        keras.backend.standardize_dtype(layer.compute_dtype)
        in ("float16", "bfloat16")
        for layer in _keras_internals.all_layers(source)
    )
    if report.function == "exact":
        passed, wanted = comparison.largest == 0, "0"
    else:
        tolerance = HALF_TOLERANCE if half else FLOAT32_TOLERANCE
        passed = comparison.relative <= tolerance
        wanted = f"{tolerance} of the largest output"
    if not passed:
        raise ConversionError(
            f"The {report.process} of {report.model!r} is not numerically "
            f"equivalent: on {comparison.inputs} inputs the outputs differ by "
            f"{comparison.largest:.3g}, {comparison.relative:.3g} of the "
            f"largest output; expected at most {wanted}. The result is "
            "discarded."
        )


def _call(model, inputs):
    """Returns the outputs as float64, without changing the model's state."""
    options = {"training": False} if isinstance(model, keras.Model) else {}
    with keras.StatelessScope():
        outputs = model(keras.tree.map_structure(_tensor, inputs), **options)
    return [
        ops.convert_to_numpy(ops.stop_gradient(x)).astype("float64")
        for x in keras.tree.flatten(outputs)
    ]


def _tensor(array):
    return None if array is None else ops.convert_to_tensor(array)


def random_inputs(model):
    """Draws standard normal inputs of the first size that the model accepts."""
    reasons = []
    for size in SIZES:
        generator = np.random.default_rng(0)
        batch = keras.tree.map_structure(
            lambda x, size=size, generator=generator: _draw(x, size, generator),
            graph.inputs(model),
        )
        try:
            _call(model, batch)
        except Exception as error:
            reasons.append(one_line(error))
            continue
        return batch
    raise ConversionError(
        f"{model.name!r} cannot be verified, because it accepts no random "
        f"inputs: pass `inputs` (--inputs). With {size} for unknown sizes: "
        f"{reasons[-1][:300]}"
    )


def _draw(tensor, size, generator):
    batch, *sizes = tensor.shape
    shape = [batch or NUM_SAMPLES, *(size if n is None else n for n in sizes)]
    _check_size(tensor.name, tuple(shape), tensor.dtype)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if "float" in dtype:
        return ops.cast(generator.normal(size=shape).astype("float32"), dtype)
    if dtype == "string":
        raise ConversionError(
            f"Random text cannot be drawn for the input {tensor.name!r}: "
            "convert without verifying."
        )
    return generator.integers(0, 2, size=shape).astype(dtype)
