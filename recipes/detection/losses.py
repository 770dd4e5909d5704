"""Detection losses, summed over the anchors of each image.

Classes are encoded as in `label_encoder.assign_targets`. The sums are not
normalized here: the trainer divides them by the number of positive anchors in
the global batch.
"""

import keras
import tensorflow as tf

from recipes.detection import label_encoder


def focal_loss(classes, logits, alpha, gamma):
    """Computes the focal loss (Lin et al. 2017, equation 5).

    With y = 1 for the anchor's class, else 0, and p = sigmoid(logit):

        y = 1: -alpha       * (1 - p)**gamma * log(p)
        y = 0: -(1 - alpha) * p**gamma       * log(1 - p)

    Args:
        classes: int32 `(N, A)`. Ignored anchors have a loss of 0.
        logits: float32 `(N, A, K)`.
        alpha: Weight of the anchor's class, between 0 and 1.
        gamma: Focusing parameter, at least 0. Larger values down-weight
            well-classified anchors.

    Returns:
        float32 `(N,)`.
    """
    one_hot = tf.one_hot(classes, tf.shape(logits)[-1])
    # The error probability is sigmoid(wrong). The gradient of its plain power,
    # as in Keras' binary_focal_crossentropy, is NaN for gamma < 1 if the
    # probability underflows to 0 in float32, from logits of 17 on. The power is
    # therefore computed as an exponential of the log-probability.
    wrong = tf.where(one_hot > 0, -logits, logits)
    cross_entropy = tf.nn.softplus(wrong)
    modulation = tf.exp(-gamma * tf.nn.softplus(-wrong))
    weights = tf.where(one_hot > 0, alpha, 1 - alpha)
    is_counted = tf.cast(classes != label_encoder.IGNORED, logits.dtype)
    loss = weights * modulation * cross_entropy * is_counted[..., None]
    return tf.reduce_sum(loss, axis=(1, 2))


def huber_loss(classes, deltas, predicted, delta):
    """Computes the Huber loss of the four deltas of positive anchors.

    Args:
        classes: int32 `(N, A)`.
        deltas: float32 `(N, A, 4)`, the targets.
        predicted: float32 `(N, A, 4)`.
        delta: Error above which the loss is linear.

    Returns:
        float32 `(N,)`.
    """
    # Keras averages over the four deltas.
    errors = 4.0 * keras.losses.huber(deltas, predicted, delta)
    return tf.reduce_sum(errors * _is_positive(classes), axis=1)


def count_positives(classes):
    """Counts positive anchors, float32 `(N,)`, in classes `(N, A)`."""
    return tf.reduce_sum(_is_positive(classes), axis=1)


def _is_positive(classes):
    return tf.cast(classes >= 0, tf.float32)
