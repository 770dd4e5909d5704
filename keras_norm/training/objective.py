"""The loss of `compile`, weighed so that parts of a batch add up to it."""

import dataclasses

import keras
import tensorflow as tf

from keras_norm.batch_scope import batch_scope
from keras_norm.training import additivity
from keras_norm.training import parts as parts_lib
from keras_norm.training import terms as terms_lib
from keras_norm.training.collectives import packed_sum


@dataclasses.dataclass(frozen=True)
class Laws:
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


class Objective:
    """The loss of a `ReplicaModel` on parts of the batch.

    With `total_p / divisor_p` the value that Keras gives for a part, that of
    the batch is `sum_p total_p / sum_p divisor_p`, for each loss with a divisor
    of its own.

    Args:
        owner: The `ReplicaModel`.
    """

    def __init__(self, owner):
        self.owner = owner
        self.laws = None

    @property
    def is_split(self):
        """Whether there is more than one part of a training batch."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return replicas * self.owner.passes.num_parts > 1

    def look_at(self, shares):
        """Finds the laws, where there are parts and they are not known.

        Args:
            shares: The shares of a batch, see `parts.local_shares`.

        Raises:
            ValueError: for a loss or a metric that is of the whole batch.
        """
        if self.laws is None and self.is_split:
            data = parts_lib.first_examples(shares, additivity.NUM_EXAMPLES)
            self.laws = additivity.find_laws(self.owner, *data)

    def divisors(self, parts):
        """What losses divide by, where examples do not say it.

        Args:
            parts: List of `Part`.

        Returns:
            For each part a dict from the index of a loss to a scalar.
        """
        kinds = None if self.laws is None else self.laws.kinds
        known = kinds is not None and terms_lib.BY_DIVISOR not in kinds
        if not self.is_split or known or self.owner._compile_loss is None:
            return [{} for _ in parts]
        return [self._divisors(part) for part in parts]

    def _divisors(self, part):
        # A graph computes no more of this forward pass than masks need.
        with (
            keras.StatelessScope(),
            batch_scope(part.present, averages_state=True),
        ):
            y_pred = self.owner.model(part.x, training=True)
            terms = self._terms(part.y, y_pred, part.weights)
        return {
            str(index): tf.cast(term.divisor, tf.float32) * part.exists
            for index, term in enumerate(terms)
            if term.kind == terms_lib.BY_DIVISOR
        }

    def weighed(self, x, y, y_pred, weights, added, share):
        """What a part adds to the loss of the batch.

        Args:
            x, y, weights, y_pred: Of the part.
            added: What `add_loss` was given in the forward pass.
            share: The `Share` of the part.

        Returns:
            `(objective, loss, values)`: whose gradient is taken, what is
            logged, and dict of the losses of the outputs.
        """
        if not self.is_split:
            return self._whole(x, y, y_pred, weights)
        terms = self._terms(y, y_pred, weights)
        laws = [] if self.laws is None else self.laws.added
        added = _summed(added, laws, self.laws is not None)
        regularization = _regularization(self.owner)
        self._check(terms, [*added, *regularization])
        objective = loss = tf.zeros([])
        values = {}
        for index, term in enumerate(terms):
            rate = self._rate(index, term, share)
            value = slope = term.value * rate
            if term.kind == terms_lib.UNREDUCED:
                slope = term.total * share["exists"]
            factor = 1.0 if term.weight is None else term.weight
            objective += factor * slope
            loss += factor * value
            values[str(index)] = value
        for law, value in [
            *zip(laws, added, strict=True),
            *((additivity.MEAN, value) for value in regularization),
        ]:
            is_sum = law == additivity.SUM
            value *= share["exists" if is_sum else "examples"]
            objective += value
            loss += value
        return objective, loss, values

    def evaluated(self, part, y_pred):
        """`(loss, values)` of the batch, all replicas' parts of it."""
        owner = self.owner
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1:
            _, loss, values = self._whole(part.x, part.y, y_pred, part.weights)
            return loss, values
        terms = self._terms(part.y, y_pred, part.weights)
        regularization = _regularization(owner)
        added = owner.losses
        added = added[: len(added) - len(regularization)]
        laws = [] if self.laws is None else self.laws.added_by_layer
        added = _summed(added, laws, self.laws is not None)
        self._check(terms, [*added, *regularization])
        rows = tf.cast(part.rows, tf.float32)
        pairs = [self._pair(i, term, part) for i, term in enumerate(terms)]
        pairs += [
            _scalar_pair(v, law, part)
            for v, law in zip(added, laws, strict=True)
        ]
        sums = packed_sum([rows, *[value for pair in pairs for value in pair]])
        values = [
            tf.math.divide_no_nan(total, divisor)
            for total, divisor in zip(sums[1::2], sums[2::2], strict=True)
        ]
        loss = tf.add_n([tf.zeros([]), *values[len(terms) :], *regularization])
        for term, value in zip(terms, values, strict=False):
            loss += value if term.weight is None else term.weight * value
        named = {str(i): value for i, value in enumerate(values[: len(terms)])}
        return loss, named

    def _whole(self, x, y, y_pred, weights):
        """Keras' own, where nothing is split."""
        with terms_lib.noted(lambda loss, *args: loss(*args)) as notes:
            loss = self.owner.compute_loss(x, y, y_pred, weights)
        values = {str(i): tf.reduce_mean(n) for i, n in enumerate(notes)}
        return tf.reduce_sum(loss), tf.reduce_mean(loss), values

    def _terms(self, y, y_pred, weights):
        if self.owner._compile_loss is None:
            return []
        return self.owner._compile_loss.terms(y, y_pred, weights)

    def _law(self, index, term):
        laws = {} if self.laws is None else self.laws.scalars
        if term.kind == terms_lib.OPAQUE or index not in laws:
            raise additivity.error(f"the loss `{term.name}`")
        return laws[index]

    def _rate(self, index, term, share):
        if term.kind == terms_lib.BY_DIVISOR:
            return share["divisors"][str(index)]
        if term.kind == terms_lib.SUMMED:
            return share["exists"]
        if term.kind in (terms_lib.PER_EXAMPLE, terms_lib.UNREDUCED):
            return share["examples"]
        is_sum = self._law(index, term) == additivity.SUM
        return share["exists" if is_sum else "examples"]

    def _pair(self, index, term, part):
        total = term.total * part.exists
        if term.kind == terms_lib.SUMMED:
            return total, _one()
        if term.kind in (terms_lib.SCALAR, terms_lib.OPAQUE):
            return _scalar_pair(total, self._law(index, term), part)
        return total, tf.cast(term.divisor, tf.float32) * part.exists

    def _check(self, terms, others):
        kinds = [term.kind for term in terms]
        alone = not others and set(kinds) == {terms_lib.UNREDUCED}
        if terms_lib.UNREDUCED in kinds and not alone:
            name = terms[kinds.index(terms_lib.UNREDUCED)].name
            raise ValueError(
                "A loss without reduction cannot be added to other losses. "
                'Pass reduction="sum_over_batch_size" or "sum". Received: '
                f"loss={name} with reduction=None"
            )


def _summed(added, laws, are_known):
    """Losses of `add_loss` as Keras sums them, with a law for each."""
    if len(added) != len(laws):
        if not are_known:
            raise additivity.error("what a layer adds by `add_loss`")
        raise ValueError(
            "Layers add other losses in training than in inference "
            f"({len(added)} and {len(laws)}): on several replicas, and with "
            "`accumulation_steps`, they have to be the same."
        )
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in added]


def _regularization(owner):
    """Losses of weights, which every part has."""
    weights = owner.trainable_weights
    count = sum(weight.regularizer is not None for weight in weights)
    losses = owner.losses[-count:] if count else []
    return [tf.reduce_sum(tf.cast(value, tf.float32)) for value in losses]


def _scalar_pair(value, law, part):
    if law == additivity.SUM:
        return value * part.exists, _one()
    rows = tf.cast(part.rows, tf.float32)
    return value * rows, rows


def _one():
    # Summed over the replicas it is 1.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return tf.constant(1.0 / replicas)
