"""The training, evaluation and prediction step of a `ReplicaModel`."""

import functools

import keras
import tensorflow as tf

from keras_norm.training import clipping
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training.apply_updates import apply_updates
from keras_norm.training.collectives import all_reduce_sum
from keras_norm.training.collectives import for_every_worker


class ReplicaStep:
    """Steps over the replicas, and what a subclass may have in its own way."""

    def part_loss(self, x, y, y_pred, weights):
        """The mean loss of some rows, to be overridden for another.

        Where it is not overridden the losses of `compile` are taken, each
        weighed by what it divides by.

        Args:
            x, y, weights: As given to `fit`; weights None where there are none.
            y_pred: Outputs of the model.

        Returns:
            `(loss, values)`: a scalar and a dict of scalars to log, all means.
        """
        raise NotImplementedError

    def part_size(self, part):
        """What a `Part` counts for, to be overridden together with the loss."""
        return part.num_examples

    @property
    def has_own_loss(self):
        """Whether `part_loss` is overridden."""
        return type(self).part_loss is not ReplicaStep.part_loss

    def weighted_loss(self, x, y, y_pred, weights, added, share):
        """`(objective, loss, values)`, see `Objective.weighed`."""
        if not self.has_own_loss:
            return self.objective.weighted(x, y, y_pred, weights, added, share)
        loss, values = self.part_loss(x, y, y_pred, weights)
        fraction = share["examples"]
        loss = tf.cast(loss, tf.float32) * fraction
        values = {
            k: tf.cast(v, tf.float32) * fraction for k, v in values.items()
        }
        return loss, loss, values

    def train_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        parts = microbatches_lib.split_batch(data, self.passes.num_microbatches)
        is_own = self.has_own_loss
        divisors = [{} for _ in parts]
        if not is_own:
            divisors = self.objective.divisors(parts)
        shares, total, state_total = microbatches_lib.microbatch_fractions(
            parts,
            [self.part_size(part) for part in parts],
            divisors,
            counts_state=not is_own and bool(self.passes.float_state),
        )
        scale = self.guard.scale()
        local = self.passes.run(parts, shares, scale)

        loss, values, state = local.reduce_over_replicas(
            None
            if state_total is None
            else (state_total, self.passes.moved_state)
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
                [tf.cast(part.num_examples, tf.float32) for part in parts]
            )
        return self._logs(data, total, local.y_pred, loss, values)

    def test_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        (part,) = microbatches_lib.split_batch(data, 1)
        with self.inference_weights():
            y_pred = self.model(part.x, training=False)
            if self.has_own_loss:
                loss, _ = self.part_loss(part.x, part.y, y_pred, part.weights)
                values, rows = {}, part.num_examples
            else:
                loss, values, rows = self.objective.evaluate(part, y_pred)
        y_pred = part.remove_padding(y_pred)
        return self._logs(data, rows, y_pred, loss, values)

    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        (part,) = microbatches_lib.split_batch((x, None, None), 1)
        with self.inference_weights():
            return part.remove_padding(self.model(part.x, training=False))

    def predict_on_batch(self, x):
        """As `keras.Model.predict_on_batch`, of a batch over all replicas."""
        rows = next(t for t in keras.tree.flatten(x) if t is not None).shape[0]
        return self.predict(x, batch_size=rows, verbose=0)

    @property
    def wants_outputs(self):
        """Whether there is something that looks at the outputs."""
        computes = type(self).compute_metrics
        is_own = computes is not keras.Model.compute_metrics
        return self._compile_metrics is not None or is_own

    def _logs(self, data, rows, y_pred, loss, values):
        x, y, weights = data
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=rows)
        if self.has_own_loss:
            logs = {"loss": loss}
            if y_pred is not None:
                logs = self.compute_metrics(x, y, y_pred, weights)
            return for_every_worker({**logs, **values})
        if self._compile_loss is not None and self._compile_loss.metrics:
            for metric, value in zip(
                self._compile_loss.metrics, values.values(), strict=True
            ):
                metric.update_state(value)
        return for_every_worker(self.compute_metrics(x, y, y_pred, weights))


class StepVariables:
    """Makes `step_variables` of a `ReplicaModel`, in whose scope it is."""

    def _create_step_variable(self, name, dtype, value):
        """A variable of the step, equal on every replica."""
        variable = self._variable(name, dtype, value)
        self.step_variables.append(variable)
        return variable

    def _replace_step_variable(self, old, value):
        """A variable of the step in the place of another."""
        new = self._variable(old.name, old.dtype, value)
        places = [variable is old for variable in self.step_variables]
        self.step_variables[places.index(True)] = new
        self._untrack_variable(old)
        return new

    def _variable(self, name, dtype, value):
        value = tf.constant(value, dtype)
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )
