"""Whether losses and metrics of parts of a batch make those of the batch.

A loss of one number a batch does not say how it was reduced, and one with a
number an example may still look at its neighbors. Both are found by computing
them on some examples, and on these in two parts.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_norm.training import loss_terms as terms_lib
from keras_norm.training.reductions import MEAN
from keras_norm.training.reductions import SUM
from keras_norm.training.reductions import Reductions
from keras_norm.training.reductions import reduction_error
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks

# Examples that are looked at; the first part has one of them.
NUM_EXAMPLES = 6
TOLERANCE = 1e-3


def infer_reductions(owner, x, y, weights):
    """The `Laws` of a `ReplicaModel`, from the examples of a batch.

    Raises:
        ValueError: for a loss or a metric that follows none.
    """
    from keras_norm.training import metrics

    rows = count_examples(x)
    slices = [slice(0, rows), slice(0, 1), slice(1, rows)]
    if rows == 1:
        slices = slices[:1] * 3
    y_pred, added, by_layer = _forward(owner, x)
    measured = _measured(owner, y, y_pred, weights, slices)
    kinds = [term.kind for term in measured[0]]
    scalars = {}
    for index, terms in enumerate(zip(*measured, strict=True)):
        law = _check_term(terms, rows)
        if terms[0].kind == terms_lib.SCALAR:
            scalars[index] = law
    laws = _laws_of_added(owner, x, added, slices, rows)
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if owner._compile_metrics is not None and replicas > 1:
        metrics.adapt_metrics(
            owner._compile_metrics, y, y_pred, weights, slices
        )
    order = [laws[index] for index in by_layer]
    return Reductions(kinds, scalars, laws, order)


def infer_reduction(whole, first, rest, rows):
    """The law that three numbers follow; None for none.

    Args:
        whole, first, rest: Of all examples, the first, and all others.
        rows: The number of all examples.
    """
    values = [float(value) for value in (whole, first, rest)]
    whole, first, rest = values
    if rows == 1 or not np.isfinite(values).all():
        return MEAN
    scale = max(abs(value) for value in values)
    is_mean = abs(first + (rows - 1) * rest - rows * whole) <= (
        TOLERANCE * rows * scale
    )
    is_sum = abs(first + rest - whole) <= TOLERANCE * scale
    if is_mean == is_sum:
        return None
    return SUM if is_sum else MEAN


def _check_term(terms, rows):
    """The law of a loss that is a scalar.

    Raises:
        ValueError: if parts of it do not make the loss.
    """
    name, kind = terms[0].name, terms[0].kind
    if kind == terms_lib.OPAQUE:
        raise reduction_error(f"the loss `{name}`")
    totals = [term.total for term in terms]
    if kind == terms_lib.SCALAR:
        found = infer_reduction(*totals, rows)
        if found is None:
            raise reduction_error(f"the loss `{name}`")
        return found
    sums = [totals]
    if kind != terms_lib.SUMMED:
        sums.append([term.divisor for term in terms])
    if rows > 1 and not all(adds_up(*numbers) for numbers in sums):
        raise reduction_error(f"the loss `{name}`")
    return SUM


def adds_up(whole, first, rest):
    """Whether numbers of two parts sum to those of the whole."""
    whole, first, rest = (
        np.asarray(keras.ops.convert_to_numpy(value), "float64")
        for value in (whole, first, rest)
    )
    if not all(np.isfinite(value).all() for value in (whole, first, rest)):
        return True
    scale = np.abs(whole) + np.abs(first) + np.abs(rest)
    return bool((np.abs(first + rest - whole) <= TOLERANCE * scale).all())


def _measured(owner, y, y_pred, weights, slices):
    if owner._compile_loss is None:
        return [[] for _ in slices]
    return [
        owner._compile_loss.terms(
            slice_examples(y, which),
            slice_examples(y_pred, which),
            slice_examples(weights, which),
        )
        for which in slices
    ]


def _forward(owner, x):
    """Outputs, added losses, and the places of these in `model.losses`."""
    values = [(v, tf.convert_to_tensor(v.value)) for v in owner.model.variables]
    with keras.StatelessScope(values, collect_losses=True) as scope:
        y_pred = owner.model(x, training=False)
        added = list(scope.losses)
        losses = owner.losses
    places = {id(loss): index for index, loss in enumerate(added)}
    by_layer = [places[id(loss)] for loss in losses if id(loss) in places]
    return y_pred, [keras.ops.sum(loss) for loss in added], by_layer


def _laws_of_added(owner, x, added, slices, rows):
    if not added:
        return []
    first, rest = (_forward(owner, slice_examples(x, s))[1] for s in slices[1:])
    laws = [
        infer_reduction(*values, rows)
        for values in zip(added, first, rest, strict=True)
    ]
    if None in laws:
        raise reduction_error("what a layer adds by `add_loss`")
    return laws


def count_examples(x):
    """The number of examples in nested tensors."""
    return next(t for t in keras.tree.flatten(x) if t is not None).shape[0]


def slice_examples(data, which):
    """Some examples of nested tensors, with their masks."""
    sliced = keras.tree.map_structure(
        lambda t: None if t is None else t[which], data
    )
    masks = [None if m is None else m[which] for m in get_masks(data)]
    set_masks(sliced, masks)
    return sliced
