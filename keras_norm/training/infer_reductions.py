"""Infers how losses and metrics are reduced over the examples of a batch.

The value of a loss that is one number per batch does not tell how it was
reduced, and a loss with a number per example may depend on other examples. Both
are inferred from the values for some examples, and for two groups of them.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_norm.training import loss_terms as terms_lib
from keras_norm.training.reductions import MEAN
from keras_norm.training.reductions import SUM
from keras_norm.training.reductions import Reductions
from keras_norm.training.reductions import reduction_error
from keras_norm.training.tf_internals import compile_loss_of
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks

# Number of examples to look at; the first group has one of them.
NUM_EXAMPLES = 6
TOLERANCE = 1e-3


def infer_reductions(owner, x, y, weights):
    """Infers the `Reductions` of a `ReplicaModel` from some examples.

    Raises:
        ValueError: for a loss that is neither a sum nor a mean over examples.
    """
    size = count_examples(x)
    slices = group_slices(size)
    y_pred, added, by_layer = forward_examples(owner, x)
    measured = _measure_terms(owner, y, y_pred, weights, slices)
    kinds = [term.kind for term in measured[0]]
    scalars = {}
    for index, terms in enumerate(zip(*measured, strict=True)):
        reduction = _infer_term_reduction(terms, size)
        if terms[0].kind == terms_lib.SCALAR:
            scalars[index] = reduction
    reductions = _infer_added_reductions(owner, x, added, slices, size)
    order = [reductions[index] for index in by_layer]
    return Reductions(kinds, scalars, reductions, order)


def group_slices(size):
    """Returns slices of all examples, the first one, and all others."""
    if size == 1:
        return [slice(0, 1)] * 3
    return [slice(0, size), slice(0, 1), slice(1, size)]


def infer_reduction(whole, first, rest, size):
    """Returns the reduction that fits three values; None if none fits.

    Args:
        whole, first, rest: Values for all examples, the first one, and all
            others.
        size: Number of all examples.
    """
    values = [float(value) for value in (whole, first, rest)]
    whole, first, rest = values
    if size == 1 or not np.isfinite(values).all():
        return MEAN
    scale = max(abs(value) for value in values)
    is_mean = abs(first + (size - 1) * rest - size * whole) <= (
        TOLERANCE * size * scale
    )
    is_sum = abs(first + rest - whole) <= TOLERANCE * scale
    if is_mean == is_sum:
        return None
    return SUM if is_sum else MEAN


def adds_up(whole, first, rest):
    """Returns True if the values of two groups sum to the value of all."""
    whole, first, rest = (
        np.asarray(keras.ops.convert_to_numpy(value), "float64")
        for value in (whole, first, rest)
    )
    if not all(np.isfinite(value).all() for value in (whole, first, rest)):
        return True
    scale = np.abs(whole) + np.abs(first) + np.abs(rest)
    return bool((np.abs(first + rest - whole) <= TOLERANCE * scale).all())


def count_examples(x):
    """Returns the number of examples in nested tensors."""
    return next(t for t in keras.tree.flatten(x) if t is not None).shape[0]


def slice_examples(data, which):
    """Slices nested tensors and their masks along the batch axis."""
    sliced = keras.tree.map_structure(
        lambda t: None if t is None else t[which], data
    )
    masks = [None if m is None else m[which] for m in get_masks(data)]
    set_masks(sliced, masks)
    return sliced


def _infer_term_reduction(terms, size):
    """Infers the reduction of a loss from its terms.

    Raises:
        ValueError: if its terms for two groups do not add up.
    """
    name, kind = terms[0].name, terms[0].kind
    if kind == terms_lib.OPAQUE:
        raise reduction_error(f"the loss `{name}`")
    totals = [term.total for term in terms]
    if kind == terms_lib.SCALAR:
        found = infer_reduction(*totals, size)
        if found is None:
            raise reduction_error(f"the loss `{name}`")
        return found
    sums = [totals]
    if kind != terms_lib.SUMMED:
        sums.append([term.divisor for term in terms])
    if size > 1 and not all(adds_up(*numbers) for numbers in sums):
        raise reduction_error(f"the loss `{name}`")
    return SUM


def _measure_terms(owner, y, y_pred, weights, slices):
    loss = compile_loss_of(owner)
    if loss is None:
        return [[] for _ in slices]
    return [
        loss.terms(
            slice_examples(y, which),
            slice_examples(y_pred, which),
            slice_examples(weights, which),
        )
        for which in slices
    ]


def forward_examples(owner, x):
    """Returns outputs, added losses, and their indices in `model.losses`."""
    values = [(v, tf.convert_to_tensor(v.value)) for v in owner.model.variables]
    with keras.StatelessScope(values, collect_losses=True) as scope:
        y_pred = owner.model(x, training=False)
        added = list(scope.losses)
        losses = owner.losses
    indices = {id(loss): index for index, loss in enumerate(added)}
    by_layer = [indices[id(loss)] for loss in losses if id(loss) in indices]
    return y_pred, [keras.ops.sum(loss) for loss in added], by_layer


def _infer_added_reductions(owner, x, added, slices, size):
    if not added:
        return []
    first, rest = (
        forward_examples(owner, slice_examples(x, s))[1] for s in slices[1:]
    )
    reductions = [
        infer_reduction(*values, size)
        for values in zip(added, first, rest, strict=True)
    ]
    if None in reductions:
        raise reduction_error("the loss that a layer adds by `add_loss`")
    return reductions
