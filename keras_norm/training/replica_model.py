"""A model that trains on any number of replicas as on a single device."""

import warnings

import keras

from keras_norm.training import clipping
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training import model_checks
from keras_norm.training import optimizer_adapter
from keras_norm.training import tf_internals
from keras_norm.training.ema import MovingAverages
from keras_norm.training.forward_backward import ForwardBackward
from keras_norm.training.global_loss import GlobalLoss
from keras_norm.training.loss_terms import TermLoss
from keras_norm.training.nonfinite import NonFiniteGuard
from keras_norm.training.nonfinite import check_nan_policy
from keras_norm.training.nonfinite import computes_in_float16
from keras_norm.training.nonfinite import with_stop_callback
from keras_norm.training.save_and_load import NetworkSaving
from keras_norm.training.single_batches import support_single_batches
from keras_norm.training.step import ReplicaStep
from keras_norm.training.step import StepVariables


@keras.saving.register_keras_serializable(package="keras_norm")
class ReplicaModel(
    NetworkSaving,
    ReplicaStep,
    StepVariables,
    tf_internals.BuildFromData,
    keras.Model,
):
    """Trains a model on replicas with the results of a single device.

    Keras' own training step clips each replica's gradients before they are
    summed, lets the moving statistics of replicas diverge, gives per-replica
    batches of different sizes the same weight, and does not support XLA or
    gradient accumulation on several replicas. Create and compile a
    `ReplicaModel` inside the strategy's scope, then train it with `fit` and
    `evaluate` like any model. Its loss is

        loss = sum_o loss_weight_o * sum_p total_op / sum_p divisor_op

    over the outputs `o` and the microbatches `p` of all replicas. The divisor
    is the divisor that Keras uses: the number of values or unmasked values, the
    sum of the sample weights, or 1, depending on the loss's reduction.
    Unscaling, the check for non-finite values, clipping and the optimizer use
    the gradient of this loss. Moving statistics of any layer are averaged over
    examples. A step takes one all-reduce of the gradients and one small
    message, and another one if the divisors differ between examples. With
    several microbatches, a loss or metric of the whole batch raises an error,
    such as `keras.losses.Dice` over the batch.

    Examples whose sample weights are all 0 do not count in the batch statistics
    of this package's layers, so padding does not change the results.

    `save`, `export` and `keras.callbacks.ModelCheckpoint` write only the
    network, with its averages if it has any. `save_weights` also writes the
    state that is needed to resume training; the network can load that file.

    Args:
        model: `keras.Model` that does not override the training step. If it is
            not built, the first batch of `fit` builds it, as in Keras.
        clip_norm, clip_global_norm, clip_value: Limits of the gradient, at most
            one of them. The optimizer's limits are applied as well.
        accumulation_steps: Number of microbatches of a per-replica batch, which
            are computed one after the other. The gradient does not depend on it
            for layers without batch statistics; batch statistics are computed
            per microbatch.
        xla: If True, the forward and backward pass are compiled with XLA.
        ema_decay: Decay of exponential moving averages of weights and moving
            statistics, `min(ema_decay, (1 + step) / (10 + step))`; None for no
            averages. `evaluate`, `predict`, `save` and `export` use the
            averages; elsewhere use `averaged()`.
        nan_policy: `"stop"`: stop all updates at the first loss or gradient
            that is not finite; `fit` and `raise_if_not_finite` raise an error.
            `"skip"`: skip that update on every replica, and count it. None: no
            check, as in Keras.

    Raises:
        ValueError: for invalid arguments, for a model that overrides
            `train_step` or a similar method, and for layers that synchronize
            over replicas if `xla` is set.

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

    Under float16 the loss is scaled. The scale is halved if a gradient
    overflows, and doubled after 2000 steps without an overflow, as in Keras.
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
        model_checks.check_model(model)
        self.model = model
        self.built = True
        self.clipping = {
            "clip_norm": clip_norm,
            "clip_global_norm": clip_global_norm,
            "clip_value": clip_value,
        }
        clipping.check_limits(self.clipping)
        check_nan_policy(nan_policy)
        self.settings = {
            **self.clipping,
            "accumulation_steps": accumulation_steps,
            "xla": xla,
            "ema_decay": ema_decay,
            "nan_policy": nan_policy,
        }
        self.passes = ForwardBackward(self, model, accumulation_steps, xla)
        # State besides the model and the optimizer.
        self.step_variables = []
        self.guard = None
        self.averages = MovingAverages(ema_decay)
        self.objective = GlobalLoss(self)
        if model_checks.is_built(model):
            self._prepare_training()

    def _prepare_training(self):
        """Reads which variables are trainable, as Keras does in `compile`."""
        settings = self.settings
        model_checks.check_layers(self.model)
        with self.distribute_strategy.scope():
            passes = self.passes = ForwardBackward(
                self,
                self.model,
                settings["accumulation_steps"],
                settings["xla"],
            )
            num_gradients = 1 + len(passes.trainable)
            if self.guard is None:
                self.guard = NonFiniteGuard(
                    self._create_step_variable,
                    settings["nan_policy"],
                    scales_loss=computes_in_float16(self.model),
                    num_gradients=num_gradients,
                )
            self.guard.resize(num_gradients, self._replace_step_variable)
            self.averages.track(
                self._create_step_variable,
                [*passes.trainable, *passes.float_state],
            )

    @property
    def output_names(self):
        """Names of the network's outputs."""
        return self.model.output_names

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compile(self, *args, **kwargs):
        """Compiles the model; create the optimizer in the strategy's scope.

        The trainable variables are read here, and again when training starts.

        Raises:
            ValueError: for an optimizer that scales the loss or accumulates
                gradients.
        """
        kwargs.update(jit_compile=False, auto_scale_loss=False)
        with self.distribute_strategy.scope():
            super().compile(*args, **kwargs)
        optimizer_adapter.check_optimizer(self.optimizer)
        clipping.check_limits(self._limits())
        compile_loss = tf_internals.compile_loss_of(self)
        tf_internals.set_compile_loss(
            self, TermLoss.from_compile_loss(compile_loss)
        )
        self.objective = GlobalLoss(self)
        if model_checks.is_built(self.model):
            self._prepare_training()

    def fit(self, *args, callbacks=None, **kwargs):
        """Trains the model, see `keras.Model.fit`.

        Raises:
            NonFiniteError: under `nan_policy="stop"`, at the end of an epoch.
        """
        return super().fit(
            *args, callbacks=with_stop_callback(callbacks), **kwargs
        )

    def make_train_function(self, force=False):
        is_new = self.train_function is None or force
        if is_new:
            self._prepare_training()
            if not self.passes.trainable:
                warnings.warn(
                    "The model does not have any trainable weights.",
                    stacklevel=3,
                )
            if self.optimizer is not None:
                with self.distribute_strategy.scope():
                    self.optimizer.build(self.passes.trainable)
        super().make_train_function(force)
        if is_new:
            self.train_function = support_single_batches(
                self, self.train_function
            )

    def make_test_function(self, force=False):
        is_new = self.test_function is None or force
        super().make_test_function(force)
        if is_new:
            self.test_function = support_single_batches(
                self, self.test_function
            )

    def inference_weights(self):
        """Returns a scope in which the model uses its averages, if any."""
        return self.averages.scope()

    def averaged(self):
        """Returns a scope in which the averages are assigned to variables."""
        return self.averages.swapped_in()

    def raise_if_not_finite(self):
        """Raises a `NonFiniteError` for the first step that was not finite.

        Under `nan_policy="stop"` updates stop at that step.
        """
        error = self.guard.error([v.path for v in self.passes.trainable])
        if error is not None and self.guard.policy == "stop":
            raise error

    def _limits(self):
        given = {k: v for k, v in self.clipping.items() if v is not None}
        return {**clipping.optimizer_limits(self.optimizer), **given}

    def build_from_data(self, iterator=None, data_batch=None):
        """Builds the model from a batch, and infers the losses' reductions."""
        # Keras would concatenate per-replica batches, which must be even.
        strategy, local_batches = self.distribute_strategy, [data_batch]
        if iterator is not None:
            batch = microbatches_lib.first_batch(iterator)
            local_batches = microbatches_lib.local_batches(strategy, batch)
        with strategy.scope():
            tf_internals.symbolic_build(self, local_batches[0])
            if self.guard is None:
                self._prepare_training()
            if not self.has_own_loss:
                self.objective.infer_reductions(local_batches)
