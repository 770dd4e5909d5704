"""How losses of parts of a batch make the loss of the batch."""

import dataclasses

import keras
import tensorflow as tf

from keras_norm.training import loss_terms as terms_lib

# The law of a number: of the batch it is the mean over examples of those of
# the parts, or their sum.
MEAN, SUM = "mean", "sum"


@dataclasses.dataclass(frozen=True)
class Reductions:
    """How losses of parts make the loss of a batch, see `additivity`.

    Attributes:
        kinds: Of each loss of `compile`, its `Term.kind`.
        scalars: Dict from the index of a loss that is one number a batch to
            its law.
        added: Laws of what `add_loss` was given, in the order of the calls.
        added_by_layer: The same in the order of `model.losses`.
    """

    kinds: list
    scalars: dict
    added: list
    added_by_layer: list


UNKNOWN = Reductions(kinds=[], scalars={}, added=[], added_by_layer=[])


def reduction_error(what):
    """The `ValueError` about a number that is of the whole batch alone."""
    return ValueError(
        f"The parts of a batch do not make {what}: it is no sum or mean over "
        "examples, or was not seen by `fit` before. On several replicas, and "
        "with `accumulation_steps`, return one value for each example, such as "
        "`keras.ops.mean(..., axis=-1)`. Received: "
        f"{what.replace('the ', '', 1)}"
    )


def weights_key(weights):
    """Sample weights of one key divide in the same way."""
    flat = keras.tree.flatten(weights)
    return tuple(None if t is None else len(t.shape) for t in flat)


def _law(index, term, laws):
    if term.kind == terms_lib.OPAQUE or index not in laws.scalars:
        raise reduction_error(f"the loss `{term.name}`")
    return laws.scalars[index]


def loss_factor(index, term, laws, share):
    """What the value of a part counts for of that of the batch."""
    if term.kind == terms_lib.BY_DIVISOR:
        return share["divisors"][str(index)]
    if term.kind == terms_lib.SUMMED:
        return share["exists"]
    if term.kind in (terms_lib.PER_EXAMPLE, terms_lib.UNREDUCED):
        return share["examples"]
    is_sum = _law(index, term, laws) == SUM
    return share["exists" if is_sum else "examples"]


def total_and_divisor(index, term, laws, part):
    """`(total, divisor)` of a part, of which sums are those of the batch."""
    total = term.total * part.exists
    if term.kind == terms_lib.SUMMED:
        return total, _one()
    if term.kind in (terms_lib.SCALAR, terms_lib.OPAQUE):
        return scalar_total_and_divisor(total, _law(index, term, laws), part)
    return total, tf.cast(term.divisor, tf.float32) * part.exists


def check_terms(terms, others):
    kinds = [term.kind for term in terms]
    alone = not others and set(kinds) == {terms_lib.UNREDUCED}
    if terms_lib.UNREDUCED in kinds and not alone:
        name = terms[kinds.index(terms_lib.UNREDUCED)].name
        raise ValueError(
            "A loss without reduction cannot be added to other losses. Pass "
            'reduction="sum_over_batch_size" or "sum". Received: '
            f"loss={name} with reduction=None"
        )


def sum_added_losses(added, laws, theirs):
    """Losses of `add_loss` as Keras sums them, with a law for each."""
    if len(added) != len(theirs):
        if laws is UNKNOWN:
            raise reduction_error("what a layer adds by `add_loss`")
        raise ValueError(
            "Layers add other losses in training than in inference "
            f"({len(added)} and {len(theirs)}): on several replicas, and with "
            "`accumulation_steps`, they have to be the same."
        )
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in added]


def regularization_losses(owner):
    """Losses of weights, which every part has."""
    weights = owner.trainable_weights
    count = sum(weight.regularizer is not None for weight in weights)
    losses = owner.losses[-count:] if count else []
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in losses]


def scalar_total_and_divisor(value, law, part):
    if law == SUM:
        return value * part.exists, _one()
    rows = tf.cast(part.num_examples, tf.float32)
    return value * rows, rows


def _one():
    # Summed over the replicas it is 1.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return tf.constant(1.0 / replicas)
