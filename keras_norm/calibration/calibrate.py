"""Calibrates a converted model on unlabeled examples."""

import dataclasses
import time

import keras
import numpy as np

from keras_norm import variables
from keras_norm.calibration import result as result_lib
from keras_norm.calibration.annealing import FIRST_RATIO
from keras_norm.calibration.annealing import copy_epsilon
from keras_norm.calibration.distillation import distill
from keras_norm.calibration.fit_layers import REFITS
from keras_norm.calibration.fit_layers import LayerFitting
from keras_norm.calibration.fit_layers import Options
from keras_norm.calibration.output_loss import run_model
from keras_norm.data.batch_inputs import batch_length
from keras_norm.data.batch_inputs import has_labels
from keras_norm.data.batch_inputs import join
from keras_norm.data.batch_inputs import take
from keras_norm.data.batches import make_batches
from keras_norm.errors import ConversionError
from keras_norm.graphs import graph
from keras_norm.graphs.program import peak_bytes

# Ridge penalty from 256 examples on, and for 25 examples or fewer; between,
# it is inversely proportional to their number.
RIDGE_STRENGTH = (1e-2, 1e-1)
# Limit of the activations of both models that are in memory at once.
MAX_BYTES = 2**32
# Limit of the examples that layers are fitted to: more improve nothing.
MAX_FITTED = 256
# Share of the examples that no layer is fitted to.
HELD_OUT = 1 / 8
BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Settings:
    """Arguments of `keras_norm.convert` about data.

    Attributes:
        refit, epsilon_ratio, distill_steps, distill_batch_size: See there.

    Raises:
        ConversionError: for an invalid value.
    """

    refit: str
    epsilon_ratio: float
    distill_steps: int
    distill_batch_size: int

    def __post_init__(self):
        if self.refit not in REFITS:
            raise ConversionError(
                f"`refit` must be one of {', '.join(map(repr, REFITS))}. "
                f"Received: refit={self.refit!r}"
            )
        ratio = self.epsilon_ratio
        if not _is_number(ratio) or not 0 <= ratio < np.inf:
            raise ConversionError(
                "`epsilon_ratio` must be a finite number, at least 0. "
                f"Received: epsilon_ratio={ratio!r}"
            )
        for name, least in (("distill_steps", 0), ("distill_batch_size", 1)):
            value = getattr(self, name)
            if not _is_number(value) or value != int(value) or value < least:
                raise ConversionError(
                    f"`{name}` must be an integer, at least {least}. "
                    f"Received: {name}={value!r}"
                )


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A converted model.

    Attributes:
        model: The model, whose weights a calibration changes.
        plan: The conversion's `Plan`.
        operations: Dict from the ids of the original model's operations to
            `(original, converted)`.
    """

    model: keras.Model
    plan: object
    operations: dict


def calibrate(model, conversion, data, settings, make_trained=None):
    """Fits a converted model to the original model, without labels.

    Args:
        model: The original model.
        conversion: The `Conversion`.
        data: As in `keras_norm.convert`.
        settings: The `Settings`.
        make_trained: Function that returns another such `Conversion`, of FRN
            with a learned epsilon, which is lowered while it is distilled. None
            to distill `conversion` itself.

    Returns:
        `CalibrationResult`.

    Raises:
        ConversionError: for data that does not fit the model, and fewer than
            two examples.
    """
    start = time.monotonic()
    arrays, notes = _read_examples(model, data)
    fitted, held_out = _split(arrays)
    fitting = LayerFitting(model, conversion.plan, conversion.operations)
    used, memory_notes = _limit_memory(fitting.program, fitted)
    fits = fitting.run(_batches(used), _options(settings, batch_length(used)))
    distillation = None
    if settings.distill_steps:
        distillation = _distill(
            model, conversion, make_trained, (used, fitted, held_out), settings
        )
    return result_lib.CalibrationResult(
        num_read=batch_length(arrays),
        num_fitted=batch_length(used),
        num_held_out=batch_length(held_out),
        refit=settings.refit,
        seconds=time.monotonic() - start,
        layers=fits,
        agreements=_compare(model, conversion.model, held_out),
        distillation=distillation,
        warnings=[
            *fitting.warnings,
            *result_lib.find_warnings(batch_length(used), fits),
        ],
        notes=notes + memory_notes,
    )


def _distill(model, conversion, make_trained, examples, settings):
    """Distills a calibrated model; returns the `DistillationResult`."""
    used, fitted, held_out = examples
    trained, annealed = conversion, []
    if make_trained is not None:
        trained = make_trained()
        fitting = LayerFitting(model, trained.plan, trained.operations)
        options = _options(settings, batch_length(used), FIRST_RATIO)
        fitting.run(_batches(used), options)
        annealed = fitting.annealed
    result = distill(
        model,
        trained.model,
        conversion.model,
        fitted,
        held_out,
        int(settings.distill_steps),
        int(settings.distill_batch_size),
        annealed,
    )
    if trained is not conversion and result.best_step:
        _copy_weights(trained, conversion, annealed)
    return result


def _options(settings, num_examples, first_ratio=0.0):
    strength = 256 * RIDGE_STRENGTH[0] / num_examples
    return Options(
        settings.refit,
        float(settings.epsilon_ratio),
        first_ratio,
        float(np.clip(strength, *RIDGE_STRENGTH)),
    )


def _is_number(value):
    is_number = isinstance(value, int | float | np.number)
    return is_number and not isinstance(value, bool)


def _copy_weights(source, target, annealed):
    """Copies the weights of the same conversion with a learned epsilon.

    Args:
        source, target: The `Conversion`s.
        annealed: List of `AnnealedLayer` of `source`.
    """
    given, wanted = (
        [v for v in each.model.variables if v.name != "learned_epsilon"]
        for each in (source, target)
    )
    variables.copy_values(given, wanted)
    found = {id(each.layer): each for each in annealed}
    for key in target.plan.layers:
        layer = target.operations[key][1]
        each = found.get(id(source.operations[key][1]))
        if each is not None and layer.learned_epsilon is not None:
            # One for all channels, of a layer that sees single values.
            copy_epsilon(each, layer)


def _read_examples(model, data):
    """Returns an array for each input, and notes on examples left out."""
    found, num_examples, size = [], 0, 0
    batches = make_batches(model, data)
    for arrays in batches:
        found.append(arrays)
        num_examples += batch_length(arrays)
        size += sum(x.nbytes for x in arrays if x is not None)
        if size > MAX_BYTES:
            break
    if num_examples < 2:
        raise ConversionError(
            "Calibration needs examples, better 256 than 64 of them, as the "
            f"model saw them in training. Received: {num_examples}"
        )
    notes = []
    if has_labels(model, data):
        notes.append("The labels in `data` were not used.")
    if size > MAX_BYTES:
        notes.append(
            f"Only the first {num_examples} examples were read: data may take "
            f"{MAX_BYTES / 2**30:g} GiB."
        )
    return join(found), notes


def _limit_memory(program, arrays):
    """Returns the examples to fit layers to, and notes on their number."""
    num_examples = batch_length(arrays)
    # Both models hold their activations.
    size = 2 * peak_bytes(program, take(arrays, slice(0, 1)))
    limit = max(int(MAX_BYTES / max(size, 1)), 2)
    if min(limit, MAX_FITTED) >= num_examples:
        return arrays, []
    # They are in random order.
    if limit >= MAX_FITTED:
        return take(arrays, slice(0, MAX_FITTED)), []
    note = (
        f"Layers were fitted to only {limit} of {num_examples} examples: one "
        f"takes {size / 2**20:.0f} MiB, and activations may take "
        f"{MAX_BYTES / 2**30:g} GiB."
    )
    return take(arrays, slice(0, limit)), [note]


def _split(arrays):
    """Returns the examples to fit the layers to, and those held out."""
    num_examples = batch_length(arrays)
    order = np.random.default_rng(0).permutation(num_examples)
    num_held_out = max(1, int(num_examples * HELD_OUT))
    return (
        take(arrays, order[num_held_out:]),
        take(arrays, order[:num_held_out]),
    )


def _batches(arrays):
    return [
        take(arrays, slice(start, start + BATCH_SIZE))
        for start in range(0, batch_length(arrays), BATCH_SIZE)
    ]


def _compare(model, converted, arrays):
    """Returns an `OutputAgreement` for each output of the models."""
    expected, got = (_outputs(each, arrays) for each in (model, converted))
    names = [tensor.name for tensor in graph.flat_outputs(model)]
    return [
        result_lib.measure_agreement(name, old, new)
        for name, old, new in zip(names, expected, got, strict=True)
    ]


def _outputs(model, arrays):
    return [x.astype("float64") for x in run_model(model, arrays)]
