"""The losses of `compile`, each as a sum over examples and its divisor."""

import contextlib
import threading
from typing import Any
from typing import NamedTuple

import keras
from keras import ops

from keras_norm.training.tf_internals import CompileLoss
from keras_norm.training.tf_internals import apply_mask
from keras_norm.training.tf_internals import get_masks

_current = threading.local()

# Divisor of a term: the number of its values, which is proportional to the
# number of examples; another sum over examples; none.
PER_EXAMPLE, BY_DIVISOR, SUMMED = "per_example", "by_divisor", "summed"
# Reduction None: the gradient of the sum, the mean in the logs.
UNREDUCED = "unreduced"
# One number a batch, however it was reduced.
SCALAR = "scalar"
# One that nothing is known of.
OPAQUE = "opaque"


class LossTerm(NamedTuple):
    """A loss of some examples, its value being `total / divisor`.

    Attributes:
        name: Name of the loss.
        total: Sum over examples, with sample weights and mask.
        divisor: What Keras divides the sum by.
        kind: Of the divisor, one of the constants above.
        weight: Its factor in the sum of all losses, or None.
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
    """Keras' losses of a model, which can be had as terms."""

    @classmethod
    def of(cls, loss):
        """The same losses as those of Keras' `CompileLoss`, or None."""
        if loss is None:
            return None
        return cls(
            loss._user_loss,
            loss._user_loss_weights,
            output_names=loss.output_names,
        )

    def build(self, y_true, y_pred):
        super().build(y_true, y_pred)
        self._flat_losses = [
            entry._replace(loss=_Measured(entry.loss))
            for entry in self._flat_losses
        ]

    @property
    def metrics(self):
        # A metric would be told the value of these examples alone.
        if getattr(_current, "noted", None) is not None:
            return [None] * len(self._flat_losses)
        return super().metrics

    def call(self, y_true, y_pred, sample_weight=None):
        # Keras brings targets by name in the order of the outputs, not these.
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
        """List of the `Term` of each loss, in the order of `metrics`."""
        with noted(measure_term) as terms:
            self(y_true, y_pred, sample_weight)
        return [
            term._replace(name=entry.name, weight=entry.loss_weights)
            for term, entry in zip(terms, self._flat_losses, strict=True)
        ]


@contextlib.contextmanager
def noted(function):
    """Inside, `TermLoss` notes what a function makes of each of its losses.

    Args:
        function: `f(loss, y_true, y_pred, sample_weight)`.

    Yields:
        The list of it.
    """
    _current.noted, _current.function = [], function
    try:
        yield _current.noted
    finally:
        _current.noted = None


class _Measured:
    """A loss, of which is noted what `noted` asks for."""

    def __init__(self, loss):
        self.loss = loss
        self.name = loss.name

    def __call__(self, y_true, y_pred, sample_weight=None):
        if getattr(_current, "noted", None) is None:
            return self.loss(y_true, y_pred, sample_weight)
        note = _current.function(self.loss, y_true, y_pred, sample_weight)
        _current.noted.append(note)
        return ops.zeros(()) if isinstance(note, LossTerm) else note


def measure_term(loss, y_true, y_pred, sample_weight=None):
    """The `Term` of a Keras loss.

    Args:
        loss: A `keras.Loss`.
        y_true, y_pred, sample_weight: As the loss is called with.
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

    # Keras' own elements, before they are reduced.
    unreduced = _shallow_copy(loss)
    unreduced.call, unreduced.reduction = call, "none"
    elements = unreduced(y_true, y_pred, sample_weight)
    total = ops.cast(ops.sum(elements), "float32")
    masks = [ops.cast(mask, "bool") for mask in masks if mask is not None]
    mask = masks[0] if masks else None
    for other in masks[1:]:
        mask = ops.logical_and(mask, other)
    if len(values[0].shape) == 0:
        is_weighed = sample_weight is not None or mask is not None
        kind = OPAQUE if is_weighed else SCALAR
        return LossTerm(loss.name, total, 1.0, kind)
    kind, divisor = _divisor(loss, elements, sample_weight, mask)
    return LossTerm(loss.name, total, divisor, kind)


def _shallow_copy(loss):
    # Keras takes `copy.copy` for a save and a load.
    copied = object.__new__(type(loss))
    vars(copied).update(vars(loss))
    return copied


def _divisor(loss, elements, sample_weight, mask):
    """`(kind, divisor)`, as `keras.src.losses.loss` reduces."""
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
