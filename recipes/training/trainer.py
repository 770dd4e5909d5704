"""Base trainer: weight decay, weight averages and gradient handling."""

import contextlib

import tensorflow as tf

import keras_norm
from keras_norm.training import ReplicaModel

# Optimizers that apply the decay to the weight itself. For the others, the
# decay is a gradient, `decay * w`.
DECOUPLED_DECAY = ("adamw", "lamb")


class Trainer(ReplicaModel):
    """A model under training, with exact results on any number of replicas.

    Training logs are the metrics of the step itself, over all replicas. With
    SGD and RMSprop, weight decay is a gradient `decay * w`, as in the papers'
    SGD; it is not part of the logged loss.

    Subclasses define the loss of a microbatch (`part_loss`), the names of the
    logged metrics (`METRICS`) and the evaluation (`make_evaluator`).

    Args:
        model: Functional model.
        config: The config of the run.
        pads: Whether training batches may hold examples of weight 0.
    """

    # Names of the metrics that a training step logs.
    METRICS = ("loss",)

    def __init__(self, model, config, pads):
        super().__init__(
            model,
            clip_norm=config.clip_norm,
            clip_global_norm=config.clip_global_norm,
            clip_value=config.clip_value,
            accumulation_steps=config.grad_accum_steps,
            xla=config.xla,
            ema_decay=config.ema_decay,
            nan_policy=config.nan_policy,
            name="trainer",
        )
        self.pads = pads
        self.uses_averages = config.use_ema
        self.decay = config.weight_decay
        if config.optimizer in DECOUPLED_DECAY:
            self.decay = 0.0
        weights = model.trainable_variables
        excluded = {
            id(weight)
            for weight in weights_without_decay(model, config.norm_weight_decay)
        }
        self.decayed_weights = [w for w in weights if id(w) not in excluded]

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        # Checkpoints hold all variables, also before the first step.
        self.optimizer.build(self.passes.trainable)

    def make_evaluator(self, steps):
        """Returns `f()` that evaluates and returns a dict of metrics.

        Args:
            steps: The `CompiledSteps` to evaluate with.
        """
        raise NotImplementedError

    def train_step(self, batch):
        inputs, targets, weights = batch
        # Without weights, no sum of weights has to be reduced over replicas.
        return super().train_step(
            (inputs, targets, weights if self.pads else None)
        )

    def part_size(self, part):
        if part.weights is None:
            return part.num_examples
        return tf.reduce_sum(part.weights)

    def inference_weights(self):
        if self.uses_averages:
            return super().inference_weights()
        return contextlib.nullcontext()

    def averaged(self):
        if self.uses_averages:
            return super().averaged()
        return contextlib.nullcontext()

    def penalty(self):
        """Returns the L2 penalty plus the losses of the layers."""
        penalty = tf.add_n([0.0, *self.model.losses])
        if self.decay and self.decayed_weights:
            penalty += self.decay * tf.add_n(
                [
                    tf.nn.l2_loss(tf.convert_to_tensor(weight.value))
                    for weight in self.decayed_weights
                ]
            )
        return penalty


def weighted_mean(values, weights):
    """Returns the mean of `(N,)` values. `weights` may be None."""
    if weights is None:
        return tf.reduce_mean(values)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * weights), tf.reduce_sum(weights)
    )


def weights_without_decay(model, norm_weight_decay):
    """Returns the trainable weights that are excluded from weight decay.

    Args:
        model: A Keras model.
        norm_weight_decay: Whether the weights of normalization layers and
            thresholds decay too.
    """
    if norm_weight_decay:
        return []
    # By identity: Keras matches names anywhere in the name of a weight.
    trainable = {id(weight) for weight in model.trainable_variables}
    weights = keras_norm.norm_weights(model)
    return [weight for weight in weights if id(weight) in trainable]
