"""Training, evaluation and prediction steps of a `ReplicaModel`."""

import functools

import keras
import tensorflow as tf

from keras_norm.distribution import all_reduce_sum
from keras_norm.distribution import expand_logs_for_workers
from keras_norm.training import clipping
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training import tf_internals
from keras_norm.training.apply_updates import apply_updates


class ReplicaStep:
    """Mixin with the steps over replicas, and hooks for subclasses."""

    def part_loss(self, x, y, y_pred, weights):
        """Computes the mean loss of a microbatch; override it for a new loss.

        By default the losses of `compile` are used, each with its own divisor.

        Args:
            x, y, weights: Data of the microbatch; weights are None if `fit` has
                none.
            y_pred: Outputs of the model.

        Returns:
            `(loss, values)`: a scalar and a dict of scalars to log, all means.
        """
        raise NotImplementedError

    def part_size(self, microbatch):
        """Returns the weight of a `Microbatch` in the mean of `part_loss`.

        Override it together with `part_loss`.
        """
        return microbatch.num_examples

    @property
    def has_own_loss(self):
        """True if `part_loss` is overridden."""
        return type(self).part_loss is not ReplicaStep.part_loss

    def weighted_loss(self, x, y, y_pred, weights, added, fractions):
        """Returns `(objective, loss, values)`, see `GlobalLoss.weighted`."""
        if not self.has_own_loss:
            return self.objective.weighted(
                x, y, y_pred, weights, added, fractions
            )
        loss, values = self.part_loss(x, y, y_pred, weights)
        fraction = fractions["examples"]
        loss = tf.cast(loss, tf.float32) * fraction
        values = {
            k: tf.cast(v, tf.float32) * fraction for k, v in values.items()
        }
        return loss, loss, values

    def train_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        microbatches = microbatches_lib.split_batch(
            data, self.passes.num_microbatches
        )
        is_own = self.has_own_loss
        divisors = [{} for _ in microbatches]
        if not is_own:
            divisors = self.objective.divisors(microbatches)
        fractions, total, state_total = microbatches_lib.microbatch_fractions(
            microbatches,
            [self.part_size(microbatch) for microbatch in microbatches],
            divisors,
            counts_state=not is_own and bool(self.passes.float_state),
        )
        scale = self.guard.scale()
        local = self.passes.run(microbatches, fractions, scale)

        loss, values, state = local.reduce_over_replicas(
            None
            if state_total is None
            else (state_total, self.passes.changed_state)
        )
        gradients = all_reduce_sum(local.gradients)
        if scale is not None:
            gradients = [g / scale for g in gradients]
        verdict = self.guard.check(loss, gradients)
        gradients = clipping.clip_gradients(gradients, **self._limits())
        tf.distribute.get_replica_context().merge_call(
            functools.partial(apply_updates, self),
            args=(gradients, state, local.other_state, verdict),
        )
        if is_own or total is None:
            total = tf.add_n(
                [
                    tf.cast(microbatch.num_examples, tf.float32)
                    for microbatch in microbatches
                ]
            )
        return self._logs(data, total, local.y_pred, loss, values)

    def test_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        (batch,) = microbatches_lib.split_batch(data, 1)
        with self.inference_weights():
            y_pred = self.model(batch.x, training=False)
            if self.has_own_loss:
                loss, _ = self.part_loss(
                    batch.x, batch.y, y_pred, batch.weights
                )
                values, size = {}, batch.num_examples
            else:
                loss, values, size = self.objective.evaluate(batch, y_pred)
        y_pred = batch.remove_padding(y_pred)
        return self._logs(data, size, y_pred, loss, values)

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        (batch,) = microbatches_lib.split_batch((x, None, None), 1)
        with self.inference_weights():
            return batch.remove_padding(self.model(batch.x, training=False))

    def predict_on_batch(self, x):
        """Predicts a single batch, which is split over the replicas."""
        size = next(t for t in keras.tree.flatten(x) if t is not None).shape[0]
        return self.predict(x, batch_size=size, verbose=0)

    @property
    def wants_outputs(self):
        """True if metrics need the outputs of the training step."""
        overrides = (
            type(self).compute_metrics is not keras.Model.compute_metrics
        )
        return tf_internals.compile_metrics_of(self) is not None or overrides

    def _logs(self, data, size, y_pred, loss, values):
        x, y, weights = data
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=size)
        if self.has_own_loss:
            logs = {"loss": loss}
            if y_pred is not None:
                logs = self.compute_metrics(x, y, y_pred, weights)
            return expand_logs_for_workers({**logs, **values})
        compile_loss = tf_internals.compile_loss_of(self)
        if compile_loss is not None and compile_loss.metrics:
            for metric, value in zip(
                compile_loss.metrics, values.values(), strict=True
            ):
                metric.update_state(value)
        return expand_logs_for_workers(
            self.compute_metrics(x, y, y_pred, weights)
        )


class StepVariables:
    """Mixin that creates the `step_variables` of a `ReplicaModel`."""

    def _create_step_variable(self, name, dtype, value):
        """Creates a variable of the step, equal on every replica."""
        variable = self._add_variable(name, dtype, value)
        self.step_variables.append(variable)
        return variable

    def _replace_step_variable(self, old, value):
        """Replaces a variable of the step; returns the new one."""
        new = self._add_variable(old.name, old.dtype, value)
        is_old = [variable is old for variable in self.step_variables]
        self.step_variables[is_old.index(True)] = new
        tf_internals.untrack_variable(self, old)
        return new

    def _add_variable(self, name, dtype, value):
        value = tf.constant(value, dtype)
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )
