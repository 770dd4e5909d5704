"""One training step and one evaluation step, right on every replica."""

import keras
import tensorflow as tf

# Weights that weight decay would pull to the floor they start from.
NORM_WEIGHTS = (
    "gamma",
    "beta",
    "tau",
    "alpha",
    "learned_epsilon",
    "center_weight",
    "scale_weight",
    "scale_bias",
)
# What a step and an evaluation know of every example.
VALUES = ("loss", "accuracy", "top5_accuracy")


class Trainer(keras.Model):
    """A classifier under training: `fit` and `evaluate` with exact numbers.

    Training logs are the values of the step itself, over all replicas.
    Evaluation counts every example of weight 1 once and divides by their
    number. Weight decay is a gradient `decay * w`, as in the papers' SGD; it is
    in no logged loss.

    Args:
        model: Functional model from images to logits.
        weight_decay: Factor of the L2 penalty.
        norm_weight_decay: Whether weights of norms and thresholds decay too.
        label_smoothing: Share of the label given to all classes.
    """

    def __init__(self, model, weight_decay, norm_weight_decay, label_smoothing):
        super().__init__(name="trainer")
        self.model = model
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.spared = () if norm_weight_decay else NORM_WEIGHTS
        self.means = [keras.metrics.Mean(name=name) for name in VALUES]
        self.examples = keras.metrics.Sum(name="examples", dtype="float32")
        self.built = True

    def call(self, images, training=None):
        return self.model(images, training=training)

    @property
    def metrics(self):
        return [*self.means, self.examples]

    def train_step(self, batch):
        images, labels, _ = batch
        num_replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            values = self._values(labels, logits)
            objective = tf.reduce_mean(values["loss"]) + self._penalty()
            # Gradients are summed over replicas, each of an equal share.
            objective = self.optimizer.scale_loss(objective / num_replicas)
        weights = self.model.trainable_variables
        gradients = tape.gradient(objective, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {name: tf.reduce_mean(value) for name, value in values.items()}

    def test_step(self, batch):
        images, labels, weights = batch
        values = self._values(labels, self.model(images, training=False))
        for mean in self.means:
            mean.update_state(values[mean.name], sample_weight=weights)
        self.examples.update_state(weights)
        return {metric.name: metric.result() for metric in self.metrics}

    def _values(self, labels, logits):
        """Loss and hits of every example."""
        num_classes = logits.shape[-1]
        targets = tf.one_hot(labels, num_classes)
        smoothing = self.label_smoothing
        targets = targets * (1.0 - smoothing) + smoothing / num_classes
        return {
            "loss": tf.nn.softmax_cross_entropy_with_logits(targets, logits),
            "accuracy": _hits(labels, logits, 1),
            "top5_accuracy": _hits(labels, logits, min(5, num_classes)),
        }

    def _penalty(self):
        """Half the squared norm of what decays, and the layers' own losses."""
        penalty = tf.add_n([0.0, *self.model.losses])
        if self.weight_decay:
            penalty += self.weight_decay * tf.add_n(
                [
                    tf.nn.l2_loss(weight.value)
                    for weight in self.model.trainable_variables
                    if weight.name not in self.spared
                ]
            )
        return penalty

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing is left to build; Keras would read a batch to find out."""


def _hits(labels, logits, k):
    # tf.math.in_top_k counts every tie as a hit: equal logits would be 100%.
    best = tf.cast(tf.math.top_k(logits, k).indices, labels.dtype)
    hit = tf.reduce_any(best == labels[:, None], axis=-1)
    return tf.cast(hit, tf.float32)
