"""What training is to any task: the step, its decay, its averages."""

import contextlib

import tensorflow as tf

from keras_norm.training import ReplicaModel
from recipes.training import weight_decay


class Trainer(ReplicaModel):
    """A model under training, with exact numbers on any replicas.

    Training logs are the values of the step itself, over all replicas. Weight
    decay of SGD and RMSprop is a gradient `decay * w`, as in the papers' SGD;
    it is in no logged loss.

    A task says in a subclass what the loss of some rows is (`part_loss`), what
    a step logs (`VALUES`), and how it is evaluated (`evaluation`).

    Args:
        model: Functional model.
        config: The config of the run.
        pads: Whether training batches may hold examples of weight 0.
    """

    # Names of what a step logs.
    VALUES = ("loss",)

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
        if config.optimizer in weight_decay.DECOUPLED:
            self.decay = 0.0
        weights = model.trainable_variables
        excluded = weight_decay.get_excluded_weights(
            model, config.norm_weight_decay
        )
        excluded = {id(weight) for weight in excluded}
        self.decaying = [w for w in weights if id(w) not in excluded]

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        # A save is of all variables, before the first step too.
        self.optimizer.build(self.passes.trainable)

    def evaluation(self, steps):
        """`f()` evaluates and gives a dict of values, to be overridden.

        Args:
            steps: The `Steps` that evaluate.
        """
        raise NotImplementedError

    def train_step(self, batch):
        inputs, targets, weights = batch
        # Without weights there is no sum of them to wait for.
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
        """Half the squared norm of what decays, and the layers' own losses."""
        penalty = tf.add_n([0.0, *self.model.losses])
        if self.decay and self.decaying:
            penalty += self.decay * tf.add_n(
                [
                    tf.nn.l2_loss(tf.convert_to_tensor(weight.value))
                    for weight in self.decaying
                ]
            )
        return penalty


def mean(values, weights):
    """The mean of `(N,)` values by their weights, which may be None."""
    if weights is None:
        return tf.reduce_mean(values)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * weights), tf.reduce_sum(weights)
    )
