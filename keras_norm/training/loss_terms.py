"""Losses of `compile` as terms: a sum over examples and its divisor."""

import contextlib
import threading
from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from keras_norm.training.tf_internals import CompileLoss
from keras_norm.training.tf_internals import apply_mask
from keras_norm.training.tf_internals import compile_loss_arguments
from keras_norm.training.tf_internals import get_losses
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import replace_losses

# Divisor of a term: the number of its values, which is proportional to the
# number of examples; another sum over examples; no divisor.
PER_EXAMPLE, BY_DIVISOR, SUMMED = "per_example", "by_divisor", "summed"
# Reduction None: the gradient is taken of the sum, and the mean is logged.
UNREDUCED = "unreduced"
# One number per batch, with an unknown reduction.
SCALAR = "scalar"
# A loss that cannot be split into a sum and its divisor.
OPAQUE = "opaque"


class LossTerm(NamedTuple):
    """A loss of some examples; its value is `total / divisor`.

    Attributes:
        name: Name of the loss.
        total: Sum over examples, with sample weights and mask.
        divisor: Number that Keras divides the sum by.
        kind: Kind of divisor, one of the constants above.
        weight: Its factor in the total loss, or None.
    """

    name: str
    total: Any
    divisor: Any
    kind: str
    weight: Any = None

    @property
    def value(self):
        return ops.divide_no_nan(self.total, self.divisor)


class TermLoss(CompileLoss):
    """Keras' `CompileLoss`, which can also return its losses as terms."""

    @classmethod
    def from_compile_loss(cls, loss):
        """Creates the same losses from Keras' `CompileLoss`, or None."""
        if loss is None:
            return None
        return cls(**compile_loss_arguments(loss))

    def __init__(self, *args, **kwargs):
        # Replicas run in threads.
        self._recording = threading.local()
        super().__init__(*args, **kwargs)

    def build(self, y_true, y_pred):
        super().build(y_true, y_pred)
        replace_losses(self, lambda loss: _RecordedLoss(loss, self._recording))

    @property
    def metrics(self):
        # Metrics must not be updated with the values of these examples alone.
        if getattr(self._recording, "results", None) is not None:
            return [None] * len(get_losses(self))
        return super().metrics

    def call(self, y_true, y_pred, sample_weight=None):
        # Keras orders targets by the names of outputs, but not sample weights.
        names = self.output_names
        if (
            isinstance(sample_weight, dict)
            and isinstance(y_pred, (list, tuple))
            and names is not None
            and set(names) == set(sample_weight)
        ):
            sample_weight = [sample_weight[name] for name in names]
        return super().call(y_true, y_pred, sample_weight)

    def terms(self, y_true, y_pred, sample_weight):
        """Returns the `LossTerm` of each loss, in the order of `metrics`."""
        with self.record(measure_term) as terms:
            self(y_true, y_pred, sample_weight)
        return [
            term._replace(name=entry.name, weight=entry.loss_weights)
            for term, entry in zip(terms, get_losses(self), strict=True)
        ]

    @contextlib.contextmanager
    def record(self, function):
        """Records the results of a function of each loss inside the scope.

        Args:
            function: `f(loss, y_true, y_pred, sample_weight)`.

        Yields:
            The list of results.
        """
        self._recording.results = []
        self._recording.function = function
        try:
            yield self._recording.results
        finally:
            self._recording.results = None


class _RecordedLoss:
    """A loss whose results `TermLoss.record` records."""

    def __init__(self, loss, recording):
        self.loss = loss
        self.name = loss.name
        self.recording = recording

    def __call__(self, y_true, y_pred, sample_weight=None):
        results = getattr(self.recording, "results", None)
        if results is None:
            return self.loss(y_true, y_pred, sample_weight)
        function = self.recording.function
        result = function(self.loss, y_true, y_pred, sample_weight)
        results.append(result)
        return ops.zeros(()) if isinstance(result, LossTerm) else result


def measure_term(loss, y_true, y_pred, sample_weight=None):
    """Returns the `LossTerm` of a Keras loss.

    Args:
        loss: A `keras.Loss`.
        y_true, y_pred, sample_weight: Arguments of the loss.
    """
    if type(loss).__call__ is not keras.Loss.__call__:
        value = loss(y_true, y_pred, sample_weight)
        return LossTerm(loss.name, value, 1.0, OPAQUE)
    values = []
    masks = [] if keras.tree.is_nested(y_pred) else get_masks(y_pred)

    def call(y_true, y_pred):
        values.append(loss.call(y_true, y_pred))
        masks.extend(get_masks(values[0]))
        return values[0]

    # Values of Keras before they are reduced.
    unreduced = _shallow_copy(loss)
    unreduced.call, unreduced.reduction = call, "none"
    elements = unreduced(y_true, y_pred, sample_weight)
    total = ops.cast(ops.sum(elements), "float32")
    masks = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    mask = masks[0] if masks else None
    for other in masks[1:]:
        mask = ops.logical_and(mask, other)
    if len(values[0].shape) == 0:
        is_weighted = sample_weight is not None or mask is not None
        kind = OPAQUE if is_weighted else SCALAR
        return LossTerm(loss.name, total, 1.0, kind)
    kind, divisor = _divisor(loss, elements, sample_weight, mask)
    return LossTerm(loss.name, total, divisor, kind)


def _shallow_copy(loss):
    # `copy.copy` would make Keras serialize the loss and load it again.
    copied = object.__new__(type(loss))
    vars(copied).update(vars(loss))
    return copied


def _divisor(loss, elements, sample_weight, mask):
    """Returns `(kind, divisor)`, following `keras.src.losses.loss`."""
    size = ops.cast(ops.size(elements), "float32")
    if loss.reduction == "sum":
        return SUMMED, ops.ones_like(size)
    if loss.reduction in (None, "none"):
        return UNREDUCED, size
    if loss.reduction == "mean_with_sample_weight":
        if sample_weight is None and mask is None:
            return PER_EXAMPLE, size
        weights = sample_weight
        if weights is not None:
            weights = ops.convert_to_tensor(weights, dtype=loss.dtype)
        weights = apply_mask(weights, mask, loss.dtype, reduction="sum")
        return BY_DIVISOR, ops.cast(ops.sum(weights), "float32")
    if mask is None:
        return PER_EXAMPLE, size
    return BY_DIVISOR, size * ops.mean(ops.cast(mask, "float32"))
