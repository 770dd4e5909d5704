"""Combines the losses of microbatches into the loss of the global batch."""

import dataclasses

import keras
import tensorflow as tf

from keras_norm.training import loss_terms as terms_lib

# Reduction of a number over a batch: the mean over examples of the numbers of
# the microbatches, or their sum.
MEAN, SUM = "mean", "sum"


@dataclasses.dataclass(frozen=True)
class Reductions:
    """Reductions of a model's losses, see `infer_reductions`.

    Attributes:
        kinds: `LossTerm.kind` of each loss of `compile`.
        scalars: Dict from the index of a loss that is one number per batch to
            its reduction.
        added: Reductions of the losses of `add_loss`, in the order of calls.
        added_by_layer: The same in the order of `model.losses`.
    """

    kinds: list
    scalars: dict
    added: list
    added_by_layer: list


UNKNOWN = Reductions(kinds=[], scalars={}, added=[], added_by_layer=[])


def reduction_error(name):
    """Returns the `ValueError` about a loss or metric without a reduction."""
    return ValueError(
        f"The microbatches of a batch do not add up to {name}: it is not a sum "
        "or mean over examples, or `fit` did not see it before. On several "
        "replicas, and with `accumulation_steps`, return one value for each "
        "example, such as `keras.ops.mean(..., axis=-1)`. Received: "
        f"{name.replace('the ', '', 1)}"
    )


def weights_key(weights):
    """Returns a key that is equal for sample weights of the same structure.

    Losses with such sample weights have the same divisors.
    """
    flat = keras.tree.flatten(weights)
    return tuple(None if t is None else len(t.shape) for t in flat)


def _scalar_reduction(index, term, reductions):
    if term.kind == terms_lib.OPAQUE or index not in reductions.scalars:
        raise reduction_error(f"the loss `{term.name}`")
    return reductions.scalars[index]


def loss_factor(index, term, reductions, fractions):
    """Returns the weight of a microbatch's loss in the global batch's loss.

    Args:
        index: Index of the loss.
        term: Its `LossTerm`.
        reductions: The model's `Reductions`.
        fractions: The microbatch's dict of `microbatch_fractions`.
    """
    if term.kind == terms_lib.BY_DIVISOR:
        return fractions["divisors"][str(index)]
    if term.kind == terms_lib.SUMMED:
        return fractions["nonempty"]
    if term.kind in (terms_lib.PER_EXAMPLE, terms_lib.UNREDUCED):
        return fractions["examples"]
    is_sum = _scalar_reduction(index, term, reductions) == SUM
    return fractions["nonempty" if is_sum else "examples"]


def total_and_divisor(index, term, reductions, microbatch):
    """Returns `(total, divisor)`, to be summed over all microbatches."""
    total = term.total * microbatch.nonempty
    if term.kind == terms_lib.SUMMED:
        return total, _unit_divisor()
    if term.kind in (terms_lib.SCALAR, terms_lib.OPAQUE):
        reduction = _scalar_reduction(index, term, reductions)
        return scalar_total_and_divisor(total, reduction, microbatch)
    return total, tf.cast(term.divisor, tf.float32) * microbatch.nonempty


def scalar_total_and_divisor(value, reduction, microbatch):
    """Returns `(total, divisor)` of a loss that is one number per batch."""
    if reduction == SUM:
        return value * microbatch.nonempty, _unit_divisor()
    size = tf.cast(microbatch.num_examples, tf.float32)
    return value * size, size


def check_terms(terms, others):
    """Raises a ValueError if an unreduced loss is added to other losses."""
    kinds = [term.kind for term in terms]
    alone = not others and set(kinds) == {terms_lib.UNREDUCED}
    if terms_lib.UNREDUCED in kinds and not alone:
        name = terms[kinds.index(terms_lib.UNREDUCED)].name
        raise ValueError(
            "A loss without reduction cannot be added to other losses. Pass "
            'reduction="sum_over_batch_size" or "sum". Received: '
            f"loss={name} with reduction=None"
        )


def sum_added_losses(added, reductions, expected):
    """Sums each loss of `add_loss` over its elements.

    Args:
        added: List of the added losses.
        reductions: The model's `Reductions`.
        expected: Their list of reductions for these losses.

    Raises:
        ValueError: if the number of losses is different.
    """
    if len(added) != len(expected):
        if reductions is UNKNOWN:
            raise reduction_error("the loss that a layer adds by `add_loss`")
        raise ValueError(
            "Layers must add the same losses in training and inference, on "
            "several replicas and with `accumulation_steps`. Received: "
            f"{len(added)} and {len(expected)} losses of `add_loss`"
        )
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in added]


def regularization_losses(owner):
    """Returns the losses of weights, which do not depend on the examples."""
    weights = owner.trainable_weights
    count = sum(weight.regularizer is not None for weight in weights)
    losses = owner.losses[-count:] if count else []
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in losses]


def _unit_divisor():
    # The sum over the replicas is 1.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return tf.constant(1.0 / replicas)
