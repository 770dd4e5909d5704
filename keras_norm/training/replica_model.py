"""A model whose training step is right on any number of replicas."""

import functools

import keras
import tensorflow as tf

from keras_norm.training import clipping
from keras_norm.training import optimizer as optimizer_lib
from keras_norm.training import parts as parts_lib
from keras_norm.training.averages import Averages
from keras_norm.training.collectives import all_reduce_sum
from keras_norm.training.collectives import for_every_worker
from keras_norm.training.commit import commit
from keras_norm.training.guard import Guard
from keras_norm.training.guard import computes_in_float16
from keras_norm.training.guard import halting
from keras_norm.training.local import LocalPass


class ReplicaModel(keras.Model):
    """Trains a model, and gives what one device would at the same global batch.

    Keras' own step clips each replica's gradients before they are summed, lets
    the moving statistics of replicas drift apart, weighs uneven shares of the
    batch evenly, and cannot be compiled or accumulated under several replicas.
    This one is built and compiled inside the strategy's scope and then trained
    with `compile`, `fit` and `evaluate` as any model:

        gradient = sum_r rows_r * gradient_r / sum_r rows_r

    over replicas `r` and the parts of their shares. Everything else happens to
    that gradient: unscaling, the check for what is not finite, clipping, the
    optimizer. Moving statistics, of any layer, are averaged the same way. All
    of it takes one all-reduce of the gradients and one small message.

    An example of sample weight 0 counts in no batch statistic of this package's
    layers, so that padding leaves no trace.

    Args:
        model: Functional or Sequential model, built.
        clip_norm, clip_global_norm, clip_value: Limits of the gradient, at most
            one of them. Those of the optimizer are obeyed too.
        accumulation_steps: Parts that each replica's share is computed in, one
            after the other. The same gradient for layers that do not look at
            the batch; batch statistics are those of the parts.
        xla: Whether forward and backward pass are compiled.
        ema_decay: Decay of moving averages of weights and moving statistics,
            `min(ema_decay, (1 + step) / (10 + step))`; None for no averages.
            `evaluate` takes them, and `averaged()` does elsewhere.
        nan_policy: `"stop"`: from the first loss or gradient on that is not
            finite nothing is updated, and `fit` and `raise_if_not_finite` name
            it. `"skip"`: that update is left out on every replica, and counted.
            None: as Keras, no check.

    Raises:
        ValueError: for arguments that cannot be, and for layers that
            synchronize over replicas where `xla` is set.

    Example:

    >>> import keras, numpy as np
    >>> from keras_norm.training import ReplicaModel
    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model = ReplicaModel(network, clip_global_norm=1.0)
    >>> model.compile(optimizer="sgd", loss="mse")
    >>> x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    >>> history = model.fit(x, y, epochs=2, verbose=0)
    >>> history.history["loss"][1] < history.history["loss"][0]
    True

    Under float16 the loss is scaled, and the scale halves where a gradient
    overflows and doubles after 2000 steps without that, as in Keras.
    """

    def __init__(
        self,
        model,
        *,
        clip_norm=None,
        clip_global_norm=None,
        clip_value=None,
        accumulation_steps=1,
        xla=False,
        ema_decay=None,
        nan_policy=None,
        name=None,
    ):
        super().__init__(name=name or f"{model.name}_on_replicas")
        self.model = model
        self.built = True
        self.clipping = {
            "clip_norm": clip_norm,
            "clip_global_norm": clip_global_norm,
            "clip_value": clip_value,
        }
        clipping.check(self.clipping)
        self.passes = LocalPass(self, model, accumulation_steps, xla)
        # What a save needs beside the model and the optimizer.
        self.step_variables = []
        self.guard = Guard(
            self._create,
            nan_policy,
            scales_loss=computes_in_float16(model),
            num_gradients=1 + len(model.trainable_variables),
        )
        averaged = [*model.trainable_variables, *self.passes.float_state]
        self.averages = Averages(
            self._create, [] if ema_decay is None else averaged, ema_decay or 0
        )

    def _create(self, name, dtype, value):
        """A variable of the step, equal on every replica."""
        value = tf.constant(value, dtype)
        variable = self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )
        self.step_variables.append(variable)
        return variable

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`, inside the scope of the strategy.

        Raises:
            ValueError: for an optimizer that does what this step does.
        """
        kwargs.update(jit_compile=False, auto_scale_loss=False)
        super().compile(*args, **kwargs)
        optimizer_lib.check(self.optimizer)
        clipping.check(self._limits())
        self.optimizer.build(self.passes.trainable)

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`.

        Raises:
            NonFiniteError: under `nan_policy="stop"`, at the end of an epoch.
        """
        return super().fit(*args, callbacks=halting(callbacks), **kwargs)

    def part_loss(self, x, y, y_pred, weights):
        """The mean loss of some rows, to be overridden for another.

        Args:
            x, y, weights: As given to `fit`; weights None where there are none.
            y_pred: Outputs of the model.

        Returns:
            `(loss, values)`: a scalar and a dict of scalars to log, all means.
        """
        loss = self.compute_loss(x, y, y_pred, weights, training=True)
        # Keras divides by the number of replicas, to sum over them.
        return loss * tf.distribute.get_strategy().num_replicas_in_sync, {}

    def part_size(self, part):
        """What a `Part` counts for, to be overridden together with the loss."""
        return part.rows

    def train_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        parts = parts_lib.split(data, self.passes.num_parts)
        fractions, total = parts_lib.fractions(
            [self.part_size(part) for part in parts]
        )
        scale = self.guard.scale()
        local = self.passes.run(parts, fractions, scale)

        loss, values, state = local.over_replicas(
            None if total is None else (total, self.passes.float_state)
        )
        gradients = all_reduce_sum(local.gradients)
        if scale is not None:
            gradients = [g / scale for g in gradients]
        verdict = self.guard.judge(loss, gradients)
        gradients = clipping.clip(gradients, **self._limits())
        tf.distribute.get_replica_context().merge_call(
            functools.partial(commit, self),
            args=(gradients, state, local.other_state, verdict),
        )
        return self._logs(data, parts, local, loss, values)

    def test_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        (part,) = parts_lib.split(data, 1)
        with self.inference_weights():
            y_pred = self.model(part.x, training=False)
            loss, _ = self.part_loss(part.x, part.y, y_pred, part.weights)
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=part.rows)
        x, y, weights = data
        y_pred = part.without_added(y_pred)
        logs = self.compute_metrics(x, y, y_pred, weights)
        return for_every_worker(logs)

    @property
    def wants_outputs(self):
        """Whether there is a metric that looks at the outputs."""
        return len(self.metrics) > 1

    def inference_weights(self):
        """A scope in which the model computes with what it infers with."""
        return self.averages.in_their_place()

    def averaged(self):
        """A context in which the model's variables hold their averages."""
        return self.averages.assigned()

    def raise_if_not_finite(self):
        """Raises `NonFiniteError` of the first step that was not finite.

        Under `nan_policy="stop"` nothing was updated from that step on.
        """
        error = self.guard.error([v.path for v in self.passes.trainable])
        if error is not None and self.guard.policy == "stop":
            raise error

    def _limits(self):
        given = {k: v for k, v in self.clipping.items() if v is not None}
        return {**clipping.of_optimizer(self.optimizer), **given}

    def _logs(self, data, parts, local, loss, values):
        x, y, weights = data
        rows = tf.add_n([tf.cast(part.rows, tf.float32) for part in parts])
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=rows)
        logs = {"loss": loss}
        if local.y_pred is not None:
            logs = self.compute_metrics(x, y, local.y_pred, weights)
        return for_every_worker({**logs, **values})

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras adds up the shares of a batch to look at it, which must be even.
        if iterator is not None:
            data_batch = parts_lib.first_share(
                self.distribute_strategy, iterator
            )
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=data_batch)
