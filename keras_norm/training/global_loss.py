"""Loss of the global batch as a sum over microbatches."""

import keras
import tensorflow as tf

from keras_norm.distribution import all_reduce_sum_packed
from keras_norm.step_scope import step_scope
from keras_norm.training import infer_reductions
from keras_norm.training import loss_terms as terms_lib
from keras_norm.training import metrics
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training import reductions as reductions_lib
from keras_norm.training.tf_internals import compile_loss_of


class GlobalLoss:
    """The loss of a `ReplicaModel` on microbatches of the global batch.

    If `total_p / divisor_p` is a loss of Keras on microbatch `p`, the loss on
    the global batch is `sum_p total_p / sum_p divisor_p`.

    Args:
        owner: The `ReplicaModel`.
    """

    def __init__(self, owner):
        self.owner = owner
        self._reductions = {}

    @property
    def is_split(self):
        """True if a training batch has more than one microbatch."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return replicas * self.owner.passes.num_microbatches > 1

    def infer_reductions(self, local_batches):
        """Infers unknown reductions, if a batch has several microbatches.

        Args:
            local_batches: The result of `microbatches.local_batches`.

        Raises:
            ValueError: for a loss or a metric that is not a sum or mean over
                examples.
        """
        if not self.is_split:
            return
        _, _, weights = keras.utils.unpack_x_y_sample_weight(local_batches[0])
        key = reductions_lib.weights_key(weights)
        if key not in self._reductions:
            data = microbatches_lib.first_examples(
                local_batches, infer_reductions.NUM_EXAMPLES
            )
            found = infer_reductions.infer_reductions(self.owner, *data)
            metrics.adapt_metrics(self.owner, *data)
            self._reductions[key] = found

    def _reductions_for(self, weights):
        key = reductions_lib.weights_key(weights)
        return self._reductions.get(key, reductions_lib.UNKNOWN)

    def divisors(self, microbatches):
        """Computes divisors that are not proportional to the examples.

        Args:
            microbatches: List of `Microbatch`.

        Returns:
            For each microbatch a dict from the index of a loss to a scalar.
        """
        reductions = self._reductions_for(microbatches[0].weights)
        may_differ = (
            reductions is reductions_lib.UNKNOWN
            or terms_lib.BY_DIVISOR in reductions.kinds
        )
        has_losses = compile_loss_of(self.owner) is not None
        if not (self.is_split and may_differ and has_losses):
            return [{} for _ in microbatches]
        return [self._divisors(microbatch) for microbatch in microbatches]

    def _divisors(self, microbatch):
        # TensorFlow prunes everything in this forward pass except the masks.
        with (
            keras.StatelessScope(),
            step_scope(microbatch.present, averages_state=True),
        ):
            y_pred = self.owner.model(microbatch.x, training=True)
            terms = self._terms(microbatch.y, y_pred, microbatch.weights)
        return {
            str(index): tf.cast(term.divisor, tf.float32) * microbatch.nonempty
            for index, term in enumerate(terms)
            if term.kind == terms_lib.BY_DIVISOR
        }

    def weighted(self, x, y, y_pred, weights, added, fractions):
        """Computes a microbatch's contribution to the loss of the batch.

        Args:
            x, y, y_pred, weights: Data and outputs of the microbatch.
            added: Losses of `add_loss` in the forward pass.
            fractions: Its dict of `microbatches.microbatch_fractions`.

        Returns:
            `(objective, loss, values)`: the scalar to differentiate, the loss
            to log, and a dict of the losses of the outputs.
        """
        if not self.is_split:
            return self._unsplit(x, y, y_pred, weights)
        terms = self._terms(y, y_pred, weights)
        reductions = self._reductions_for(weights)
        added = reductions_lib.sum_added_losses(
            added, reductions, reductions.added
        )
        regularization = reductions_lib.regularization_losses(self.owner)
        reductions_lib.check_terms(terms, [*added, *regularization])
        objective = loss = tf.zeros([])
        values = {}
        for index, term in enumerate(terms):
            factor = reductions_lib.loss_factor(
                index, term, reductions, fractions
            )
            value = differentiated = term.value * factor
            if term.kind == terms_lib.UNREDUCED:
                differentiated = term.total * fractions["nonempty"]
            weight = 1.0 if term.weight is None else term.weight
            objective += weight * differentiated
            loss += weight * value
            values[str(index)] = value
        for reduction, value in [
            *zip(reductions.added, added, strict=True),
            *((reductions_lib.MEAN, value) for value in regularization),
        ]:
            is_sum = reduction == reductions_lib.SUM
            value *= fractions["nonempty" if is_sum else "examples"]
            objective += value
            loss += value
        return objective, loss, values

    def evaluate(self, microbatch, y_pred):
        """Returns `(loss, values, num_examples)` of the global batch."""
        owner = self.owner
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas == 1:
            _, loss, values = self._unsplit(
                microbatch.x, microbatch.y, y_pred, microbatch.weights
            )
            return loss, values, microbatch.num_examples
        terms = self._terms(microbatch.y, y_pred, microbatch.weights)
        regularization = reductions_lib.regularization_losses(owner)
        added = owner.losses
        added = added[: len(added) - len(regularization)]
        reductions = self._reductions_for(microbatch.weights)
        added = reductions_lib.sum_added_losses(
            added, reductions, reductions.added_by_layer
        )
        reductions_lib.check_terms(terms, [*added, *regularization])
        pairs = [
            reductions_lib.total_and_divisor(i, term, reductions, microbatch)
            for i, term in enumerate(terms)
        ]
        pairs += [
            reductions_lib.scalar_total_and_divisor(
                value, reduction, microbatch
            )
            for value, reduction in zip(
                added, reductions.added_by_layer, strict=True
            )
        ]
        num_examples, *sums = all_reduce_sum_packed(
            [
                tf.cast(microbatch.num_examples, tf.float32),
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
        return loss, named, num_examples

    def _unsplit(self, x, y, y_pred, weights):
        """Computes Keras' own loss, for a batch that is not split."""
        compile_loss = compile_loss_of(self.owner)
        if compile_loss is None:
            loss, results = self.owner.compute_loss(x, y, y_pred, weights), []
        else:
            with compile_loss.record(
                lambda loss, *args: loss(*args)
            ) as results:
                loss = self.owner.compute_loss(x, y, y_pred, weights)
        values = {str(i): tf.reduce_mean(r) for i, r in enumerate(results)}
        return tf.reduce_sum(loss), tf.reduce_mean(loss), values

    def _terms(self, y, y_pred, weights):
        compile_loss = compile_loss_of(self.owner)
        if compile_loss is None:
            return []
        return compile_loss.terms(y, y_pred, weights)
