"""A model whose training step is right on any number of replicas."""

import contextlib

import keras
import tensorflow as tf

from keras_norm.conversion import graph
from keras_norm.training import clipping
from keras_norm.training import optimizer
from keras_norm.training import parts as parts_lib
from keras_norm.training.averages import Averages
from keras_norm.training.collectives import all_reduce_sum
from keras_norm.training.collectives import packed_sum
from keras_norm.training.guard import Guard
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
            finite nothing is updated, and `raise_if_not_finite` names it.
            `"skip"`: that update is left out on every replica, and counted.
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
        self.guard = Guard(
            self._create,
            nan_policy,
            scales_loss=_computes_in_float16(model),
            num_gradients=1 + len(model.trainable_variables),
        )
        self.averages = None
        if ema_decay is not None:
            variables = [*model.trainable_variables, *self.passes.float_state]
            self.averages = Averages(self._create, variables, ema_decay)

    def _create(self, name, dtype, value):
        """A variable of the step, equal on every replica."""
        value = tf.constant(value, dtype)
        return self.add_weight(
            name=name,
            shape=value.shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.cast(value, dtype),
            trainable=False,
            autocast=False,
        )

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`, inside the scope of the strategy.

        Raises:
            ValueError: for an optimizer that scales the loss or accumulates
                gradients by itself, and for limits given twice.
        """
        kwargs.update(jit_compile=False, auto_scale_loss=False)
        super().compile(*args, **kwargs)
        own = self.optimizer
        if isinstance(own, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "`ReplicaModel` scales the loss itself: pass the optimizer "
                f"inside. Received: optimizer={own.name}"
            )
        if own.gradient_accumulation_steps:
            raise ValueError(
                "`ReplicaModel` takes `accumulation_steps`. Received: "
                "optimizer.gradient_accumulation_steps="
                f"{own.gradient_accumulation_steps}"
            )
        clipping.check(self._limits())
        own.build(self.passes.trainable)

    def part_loss(self, x, y, y_pred, weights):
        """The mean loss of some rows, to be overridden for another.

        Args:
            x, y, weights: As given to `fit`; weights None where there are none.
            y_pred: Outputs of the model.

        Returns:
            `(loss, values)`: a scalar, and a dict of scalars to be logged, each
            a mean over the rows.
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
        fractions, total = self._fractions(parts)
        scale = self.guard.scale()
        local = self.passes.run(parts, fractions, scale)

        loss, values, state = self._reduced(local, total)
        gradients = all_reduce_sum(local.gradients)
        if scale is not None:
            gradients = [g / scale for g in gradients]
        verdict = self.guard.judge(loss, gradients)
        gradients = clipping.clip(gradients, **self._limits())
        tf.distribute.get_replica_context().merge_call(
            self._commit, args=(gradients, state, local.other_state, verdict)
        )
        return self._logs(data, parts, local, loss, values)

    def test_step(self, data):
        data = keras.utils.unpack_x_y_sample_weight(data)
        (part,) = parts_lib.split(data, 1)
        rows = part.rows
        with self.inference_weights():
            y_pred = self.model(part.x, training=False)
            loss, _ = self.part_loss(part.x, part.y, y_pred, part.weights)
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=rows)
        if not isinstance(rows, int):
            y_pred = keras.tree.map_structure(
                lambda t: t[: tf.cast(rows, tf.int32)], y_pred
            )
        x, y, weights = data
        logs = self.compute_metrics(x, y, y_pred, weights)
        return self._for_every_worker(logs)

    @property
    def wants_outputs(self):
        """Whether there is a metric that looks at the outputs."""
        return len(self.metrics) > 1

    @property
    def step_variables(self):
        """What a save needs beside the model and the optimizer."""
        return self._non_trainable_variables

    def inference_weights(self):
        """A scope in which the model computes with what it infers with."""
        if self.averages is None:
            return contextlib.nullcontext()
        return self.averages.in_their_place()

    def averaged(self):
        """A context in which the model's variables hold their averages."""
        if self.averages is None:
            return contextlib.nullcontext()
        return self.averages.assigned()

    def raise_if_not_finite(self):
        """Raises `NonFiniteError` of the first step that was not finite.

        Under `nan_policy="stop"` nothing was updated from that step on.
        """
        error = self.guard.error([v.path for v in self.passes.trainable])
        if error is not None and self.guard.policy == "stop":
            raise error

    def _limits(self):
        return {
            **clipping.of_optimizer(self.optimizer),
            **_given(self.clipping),
        }

    def _reduced(self, local, total):
        """Loss, values and state of the global batch, in one message."""
        names = list(local.values)
        loss, *small = packed_sum(
            [local.loss, *local.values.values(), *local.float_state]
        )
        values = dict(zip(names, small, strict=False))
        state = small[len(names) :]
        if total is not None:
            # Nothing but padding: nothing is learned.
            state = [
                tf.where(total > 0, new, old.value)
                for new, old in zip(state, self.passes.float_state, strict=True)
            ]
        return loss, values, state

    def _fractions(self, parts):
        """What each part counts for of the global batch, and the latter."""
        sizes = [self.part_size(part) for part in parts]
        if all(isinstance(size, int) for size in sizes):
            replicas = tf.distribute.get_replica_context().num_replicas_in_sync
            return [size / (sum(sizes) * replicas) for size in sizes], None
        (total,) = all_reduce_sum([tf.add_n(sizes)])
        return [tf.math.divide_no_nan(size, total) for size in sizes], total

    def _commit(self, strategy, gradients, state, other_state, verdict):
        """Assigns everything at once, in the context of all replicas."""

        def update(variable, function, *tensors):
            strategy.extended.update(
                variable.value,
                lambda v, *args: v.assign(function(v, *args)),
                args=tensors,
                group=False,
            )

        def apply():
            optimizer.apply(
                self.optimizer, strategy, gradients, self.passes.trainable
            )
            for variable, value in zip(
                [*self.passes.float_state, *self.passes.other_state],
                [*state, *other_state],
                strict=True,
            ):
                update(variable, lambda old, new: new, value)
            if self.averages is not None:
                self.averages.record(update, self.guard.step.value)

        self.guard.record(update, verdict)
        if verdict.applies is None:
            apply()
            return
        applies = strategy.experimental_local_results(verdict.applies)[0]
        tf.cond(applies, lambda: [apply(), 0][1], lambda: 0)

    def _logs(self, data, parts, local, loss, values):
        x, y, weights = data
        rows = tf.add_n([tf.cast(part.rows, tf.float32) for part in parts])
        if self.metrics:
            self.metrics[0].update_state(loss, sample_weight=rows)
        logs = {"loss": loss}
        if local.y_pred is not None:
            logs = self.compute_metrics(x, y, local.y_pred, weights)
        return self._for_every_worker({**logs, **values})

    def _for_every_worker(self, logs):
        """Logs as `fit` takes them: with several workers it wants vectors."""
        strategy = tf.distribute.get_strategy()
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return logs
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras adds up the shares of a batch to look at it, which must be even.
        strategy = self.distribute_strategy
        if iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0],
                    next(batches),
                )
                break
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)


def _given(settings):
    return {k: v for k, v in settings.items() if v is not None}


def _computes_in_float16(model):
    return any(
        layer.compute_dtype == "float16" for layer in graph.family(model)
    )
