"""The loss of `compile`, weighed so that parts of a batch add up to it."""

import keras
import tensorflow as tf

from keras_norm.batch_scope import batch_scope
from keras_norm.training import infer_reductions
from keras_norm.training import loss_terms as terms_lib
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training import reductions as reductions_lib
from keras_norm.training.collectives import packed_sum


class GlobalLoss:
    """The loss of a `ReplicaModel` on parts of the batch.

    With `total_p / divisor_p` the value that Keras gives for a part, that of
    the batch is `sum_p total_p / sum_p divisor_p`, for each loss with a divisor
    of its own.

    Args:
        owner: The `ReplicaModel`.
    """

    def __init__(self, owner):
        self.owner = owner
        self._laws = {}

    @property
    def is_split(self):
        """Whether there is more than one part of a training batch."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return replicas * self.owner.passes.num_microbatches > 1

    def infer_reductions(self, shares):
        """Finds the laws, where there are parts and they are not known.

        Args:
            shares: The shares of a batch, see `parts.local_shares`.

        Raises:
            ValueError: for a loss or a metric that is of the whole batch.
        """
        if not self.is_split:
            return
        _, _, weights = keras.utils.unpack_x_y_sample_weight(shares[0])
        if reductions_lib.weights_key(weights) not in self._laws:
            data = microbatches_lib.first_examples(
                shares, infer_reductions.NUM_EXAMPLES
            )
            laws = infer_reductions.infer_reductions(self.owner, *data)
            self._laws[reductions_lib.weights_key(weights)] = laws

    def _laws_for(self, weights):
        return self._laws.get(
            reductions_lib.weights_key(weights), reductions_lib.UNKNOWN
        )

    def divisors(self, parts):
        """What losses divide by, where examples do not say it.

        Args:
            parts: List of `Part`.

        Returns:
            For each part a dict from the index of a loss to a scalar.
        """
        laws = self._laws_for(parts[0].weights)
        may_differ = (
            laws is reductions_lib.UNKNOWN or terms_lib.BY_DIVISOR in laws.kinds
        )
        has_losses = self.owner._compile_loss is not None
        if not (self.is_split and may_differ and has_losses):
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

    def weighted(self, x, y, y_pred, weights, added, share):
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
        laws = self._laws_for(weights)
        added = reductions_lib.sum_added_losses(added, laws, laws.added)
        regularization = reductions_lib.regularization_losses(self.owner)
        reductions_lib.check_terms(terms, [*added, *regularization])
        objective = loss = tf.zeros([])
        values = {}
        for index, term in enumerate(terms):
            rate = reductions_lib.loss_factor(index, term, laws, share)
            value = slope = term.value * rate
            if term.kind == terms_lib.UNREDUCED:
                slope = term.total * share["exists"]
            factor = 1.0 if term.weight is None else term.weight
            objective += factor * slope
            loss += factor * value
            values[str(index)] = value
        for law, value in [
            *zip(laws.added, added, strict=True),
            *((reductions_lib.MEAN, value) for value in regularization),
        ]:
            is_sum = law == reductions_lib.SUM
            value *= share["exists" if is_sum else "examples"]
            objective += value
            loss += value
        return objective, loss, values

    def evaluate(self, part, y_pred):
        """`(loss, values, rows)` of the batch, all replicas' parts of it."""
        owner = self.owner
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1:
            _, loss, values = self._whole(part.x, part.y, y_pred, part.weights)
            return loss, values, part.num_examples
        terms = self._terms(part.y, y_pred, part.weights)
        regularization = reductions_lib.regularization_losses(owner)
        added = owner.losses
        added = added[: len(added) - len(regularization)]
        laws = self._laws_for(part.weights)
        added = reductions_lib.sum_added_losses(
            added, laws, laws.added_by_layer
        )
        reductions_lib.check_terms(terms, [*added, *regularization])
        pairs = [
            reductions_lib.total_and_divisor(i, term, laws, part)
            for i, term in enumerate(terms)
        ]
        pairs += [
            reductions_lib.scalar_total_and_divisor(value, law, part)
            for value, law in zip(added, laws.added_by_layer, strict=True)
        ]
        rows, *sums = packed_sum(
            [
                tf.cast(part.num_examples, tf.float32),
                *[value for pair in pairs for value in pair],
            ]
        )
        values = [
            tf.math.divide_no_nan(total, divisor)
            for total, divisor in zip(sums[::2], sums[1::2], strict=True)
        ]
        loss = tf.add_n([tf.zeros([]), *values[len(terms) :], *regularization])
        for term, value in zip(terms, values, strict=False):
            loss += value if term.weight is None else term.weight * value
        named = {str(i): value for i, value in enumerate(values[: len(terms)])}
        return loss, named, rows

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
