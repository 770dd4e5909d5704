"""A model whose training step is right on any number of replicas."""

import warnings

import keras

from keras_norm.training import clipping
from keras_norm.training import microbatches as microbatches_lib
from keras_norm.training import model_checks
from keras_norm.training import optimizer_adapter
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
class ReplicaModel(NetworkSaving, ReplicaStep, StepVariables, keras.Model):
    """Trains a model, and gives what one device would at the same global batch.

    Keras' own step clips each replica's gradients before they are summed, lets
    the moving statistics of replicas drift apart, weighs uneven shares of the
    batch evenly, and cannot be compiled or accumulated under several replicas.
    This one is built and compiled inside the strategy's scope and then trained
    with `compile`, `fit` and `evaluate` as any model:

        loss = sum_o loss_weight_o * sum_p total_op / sum_p divisor_op

    over the outputs `o` and the parts `p` of all replicas' shares. The divisor
    is that of Keras: the number of values, of unmasked values, the sum of the
    sample weights, or 1, as the loss reduces. Everything else happens to the
    gradient of that: unscaling, the check for what is not finite, clipping, the
    optimizer. Moving statistics, of any layer, are averaged by rows. All of it
    takes one all-reduce of the gradients and one small message, and one more
    where examples differ in what they divide by. A loss or a metric that looks
    at the batch as a whole, such as `keras.losses.Dice` over the batch, is
    refused where there are parts.

    An example whose sample weights are all 0 counts in no batch statistic of
    this package's layers, so that padding leaves no trace.

    `save` and `export` write the network alone, with its averages if there are
    any; so does `keras.callbacks.ModelCheckpoint`. `save_weights` writes what
    training needs to go on as well, and the network can load that file too.

    Args:
        model: `keras.Model` without a training step of its own. If it is not
            built, the first batch of `fit` builds it, as in Keras.
        clip_norm, clip_global_norm, clip_value: Limits of the gradient, at most
            one of them. Those of the optimizer are obeyed too.
        accumulation_steps: Parts that each replica's share is computed in, one
            after the other. The same gradient for layers that do not look at
            the batch; batch statistics are those of the parts.
        xla: Whether forward and backward pass are compiled.
        ema_decay: Decay of moving averages of weights and moving statistics,
            `min(ema_decay, (1 + step) / (10 + step))`; None for no averages.
            `evaluate`, `predict`, `save` and `export` take them, and
            `averaged()` does elsewhere.
        nan_policy: `"stop"`: from the first loss or gradient on that is not
            finite nothing is updated, and `fit` and `raise_if_not_finite` name
            it. `"skip"`: that update is left out on every replica, and counted.
            None: as Keras, no check.

    Raises:
        ValueError: for arguments that cannot be, for a model that overrides
            `train_step` or its like, and for layers that synchronize over
            replicas where `xla` is set.

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
        # What a save needs beside the model and the optimizer.
        self.step_variables = []
        self.guard = None
        self.averages = MovingAverages(ema_decay)
        self.objective = GlobalLoss(self)
        if model_checks.is_built(model):
            self._prepare_training()

    def _prepare_training(self):
        """Takes what is trainable now, as Keras does in `compile`."""
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
        """Names of the outputs, where the network has them."""
        return self.model.output_names

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def compile(self, *args, **kwargs):
        """As `keras.Model.compile`; an optimizer is of the strategy's scope.

        What is trainable is read here, and again where training starts for the
        first time since.

        Raises:
            ValueError: for an optimizer that does what this step does.
        """
        kwargs.update(jit_compile=False, auto_scale_loss=False)
        with self.distribute_strategy.scope():
            super().compile(*args, **kwargs)
        optimizer_adapter.check_optimizer(self.optimizer)
        clipping.check_limits(self._limits())
        self._compile_loss = TermLoss.of(self._compile_loss)
        self.objective = GlobalLoss(self)
        if model_checks.is_built(self.model):
            self._prepare_training()

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`.

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
        """A scope in which the model computes with what it infers with."""
        return self.averages.scope()

    def averaged(self):
        """A context in which the model's variables hold their averages."""
        return self.averages.swapped_in()

    def raise_if_not_finite(self):
        """Raises `NonFiniteError` of the first step that was not finite.

        Under `nan_policy="stop"` nothing was updated from that step on.
        """
        error = self.guard.error([v.path for v in self.passes.trainable])
        if error is not None and self.guard.policy == "stop":
            raise error

    def _limits(self):
        given = {k: v for k, v in self.clipping.items() if v is not None}
        return {**clipping.optimizer_limits(self.optimizer), **given}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras adds up the shares of a batch to look at it, which must be even.
        strategy, shares = self.distribute_strategy, [data_batch]
        if iterator is not None:
            batch = microbatches_lib.first_batch(iterator)
            shares = microbatches_lib.local_batches(strategy, batch)
        with strategy.scope():
            self._symbolic_build(data_batch=shares[0])
            if self.guard is None:
                self._prepare_training()
            if not self.has_own_loss:
                self.objective.infer_reductions(shares)
