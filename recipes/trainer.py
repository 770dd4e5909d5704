"""The loss of a classifier, what it logs, and how it is evaluated."""

import contextlib

import tensorflow as tf

from keras_norm.training import ReplicaModel
from recipes import weight_decay

# What a step and an evaluation know of every example.
VALUES = ("loss", "accuracy", "top5_accuracy")


class Trainer(ReplicaModel):
    """A classifier under training, with exact numbers on any replicas.

    Training logs are the values of the step itself, over all replicas.
    Evaluation counts every example of weight 1 once. Weight decay of SGD and
    RMSprop is a gradient `decay * w`, as in the papers' SGD; it is in no logged
    loss.

    Args:
        model: Functional model from images to logits.
        config: A `Config`.
        pads: Whether training batches may hold images of weight 0.
    """

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
        self.label_smoothing = config.label_smoothing
        self.decay = config.weight_decay
        if config.optimizer in weight_decay.DECOUPLED:
            self.decay = 0.0
        weights = model.trainable_variables
        spared = weight_decay.spared(weights, config.norm_weight_decay)
        spared = {id(weight) for weight in spared}
        self.decaying = [w for w in weights if id(w) not in spared]

    def train_step(self, batch):
        images, labels, weights = batch
        # Without weights there is no sum of them to wait for.
        return super().train_step(
            (images, labels, weights if self.pads else None)
        )

    def part_size(self, part):
        if part.weights is None:
            return part.rows
        return tf.reduce_sum(part.weights)

    def part_loss(self, x, y, y_pred, weights):
        values = self.values(y, y_pred)
        means = {name: _mean(v, weights) for name, v in values.items()}
        return means["loss"] + self.penalty(), means

    def totals(self, batch):
        """Sums of the values over a batch, and the number of its examples."""
        images, labels, weights = batch
        with self.inference_weights():
            logits = self.model(images, training=False)
        values = self.values(labels, logits)
        sums = {k: tf.reduce_sum(v * weights) for k, v in values.items()}
        return {**sums, "examples": tf.reduce_sum(weights)}

    def inference_weights(self):
        if self.uses_averages:
            return super().inference_weights()
        return contextlib.nullcontext()

    def averaged(self):
        if self.uses_averages:
            return super().averaged()
        return contextlib.nullcontext()

    def values(self, labels, logits):
        """Loss and hits of every example.

        Args:
            labels: Classes `(N,)`, or what each class counts for
                `(N, classes)`.
            logits: `(N, classes)`.
        """
        num_classes = logits.shape[-1]
        targets = labels
        if labels.shape.rank == 1:
            targets = tf.one_hot(labels, num_classes)
        else:
            labels = tf.argmax(labels, axis=-1)
        smoothing = self.label_smoothing
        targets = targets * (1.0 - smoothing) + smoothing / num_classes
        return {
            "loss": tf.nn.softmax_cross_entropy_with_logits(targets, logits),
            "accuracy": _hits(labels, logits, 1),
            "top5_accuracy": _hits(labels, logits, min(5, num_classes)),
        }

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


def _mean(values, weights):
    if weights is None:
        return tf.reduce_mean(values)
    return tf.math.divide_no_nan(
        tf.reduce_sum(values * weights), tf.reduce_sum(weights)
    )


def _hits(labels, logits, k):
    # tf.math.in_top_k counts every tie as a hit: equal logits would be 100%.
    best = tf.cast(tf.math.top_k(logits, k).indices, labels.dtype)
    hit = tf.reduce_any(best == labels[:, None], axis=-1)
    return tf.cast(hit, tf.float32)
