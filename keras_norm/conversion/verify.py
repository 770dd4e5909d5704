"""Both models on the same inputs: how far apart are their outputs?"""

import contextlib
import math

import keras
import numpy as np
from keras import ops

from keras_norm.conversion import graph
from keras_norm.conversion import invalid_weights
from keras_norm.conversion.report import Comparison
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line

# Sizes to try where the model leaves height, width or length open.
SIZES = (32, 64, 96, 128, 224, 331)
NUM_SAMPLES = 2
# Largest difference over the largest output, of a function that was kept.
FLOAT32_TOLERANCE = 1e-5
HALF_TOLERANCE = 5e-2
# Of one tensor: what a machine can be asked for.
MAX_BYTES = 2**32


def verify_conversion(source, converted, report, inputs=None):
    """Compares both models on random inputs, and on given ones.

    Args:
        source: The model that was converted.
        converted: The new model.
        report: Its `ConversionReport`; the comparisons are added to it.
        inputs: Optional arrays, as nested as the models take them.

    Raises:
        ConversionError: if the report says that the function was kept and the
            outputs differ, if weights or outputs are NaN or infinite, or the
            models cannot be called.
    """
    faults = invalid_weights.find_invalid_weights(source)
    if faults:
        description = invalid_weights.describe_invalid_weights(faults)
        raise ConversionError(
            f"{source.name!r} cannot be verified: {description}"
        )
    _check_sizes(source, NUM_SAMPLES if inputs is None else _length(inputs))
    named = {"random": _random_inputs(source)}
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
                f"{source.name!r} does not take the {name} inputs: "
                f"{one_line(error)}"
            ) from error
        report.comparisons.append(comparison)
        _require_kept(source, report, comparison)


def compare_outputs(source, converted, name, inputs):
    """The largest difference of two models' outputs, at inference.

    Raises:
        ConversionError: for outputs that are NaN or infinite, which differ
            from nothing.
    """
    expected, got = (
        _finite(model, role, name, inputs)
        for model, role in ((source, "the model"), (converted, "the result"))
    )
    largest = relative = 0.0
    for theirs, ours in zip(expected, got, strict=True):
        if np.array_equal(theirs, ours):
            continue
        difference = np.max(np.abs(ours - theirs))
        scale = np.max(np.abs(theirs))
        largest = max(largest, float(difference))
        relative = max(relative, float(difference / scale) if scale else np.inf)
    return Comparison(name, _length(inputs), largest, relative)


def _length(inputs):
    shape = np.shape(
        next(x for x in keras.tree.flatten(inputs) if x is not None)
    )
    return shape[0] if shape else 1


def _check_sizes(model, num_samples):
    """Raises an error for tensors too large to compute, before any is made."""
    tensors = keras.tree.flatten(graph.inputs(model))
    for node in graph.all_nodes(model):
        tensors += graph.output_tensors(node)
    for tensor in tensors:
        _check_size(tensor.name, (num_samples, *tensor.shape[1:]), tensor.dtype)


def _check_size(name, shape, dtype):
    """The same for one tensor, unless some of its sizes are unknown."""
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


def _finite(model, role, name, inputs):
    """The outputs of a model; an error names what makes them infinite."""
    outputs = _call(model, inputs)
    for output in outputs:
        bad = output[~np.isfinite(output)]
        if bad.size:
            raise ConversionError(
                f"On {name} inputs {bad.size} of {output.size} outputs of "
                f"{role} {model.name!r} are not finite"
                f"{_origin(model, inputs)}: pass `inputs` for which they are, "
                f"or convert without verifying. Received: {bad[0]:g}"
            )
    return outputs


def _origin(model, inputs):
    """Which operation is the first to give what is not finite, in words."""
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
        # A model takes its inputs in more forms than a bare function does.
        return ""
    for (operation, tensor), output in zip(calls, outputs, strict=True):
        if not np.all(np.isfinite(output)):
            return f", first in {operation.name!r} ({tensor.dtype})"
    return ""


def _require_kept(source, report, comparison):
    if report.function == "changed":
        return
    half = any(
        keras.backend.standardize_dtype(layer.compute_dtype)
        in ("float16", "bfloat16")
        for layer in graph.all_layers(source)
    )
    if report.function == "exact":
        passed, wanted = comparison.largest == 0, "0"
    else:
        tolerance = HALF_TOLERANCE if half else FLOAT32_TOLERANCE
        passed = comparison.relative <= tolerance
        wanted = f"{tolerance} of the largest output"
    if not passed:
        raise ConversionError(
            f"{report.model!r} should have kept its function, but on "
            f"{comparison.inputs} inputs the outputs differ by "
            f"{comparison.largest:.3g}, {comparison.relative:.3g} of the "
            f"largest; at most {wanted} was expected. Nothing is returned."
        )


def _call(model, inputs):
    """Every output in float64. What the model keeps, such as states, stays."""
    options = {"training": False} if isinstance(model, keras.Model) else {}
    with keras.StatelessScope():
        outputs = model(keras.tree.map_structure(_tensor, inputs), **options)
    return [
        ops.convert_to_numpy(ops.stop_gradient(x)).astype("float64")
        for x in keras.tree.flatten(outputs)
    ]


def _tensor(array):
    return None if array is None else ops.convert_to_tensor(array)


def _random_inputs(model):
    """Standard normal inputs of the first size that the model takes."""
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
        f"{model.name!r} cannot be verified: it takes no random input. With "
        f"{size} for unknown sizes it says: {reasons[-1][:300]}"
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
