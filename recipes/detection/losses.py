"""The losses of detection, a sum for each image.

The classes are those of `targets.assign`. Nothing is divided here: what a sum
is divided by, the positive anchors of the whole batch, is for its reader.
"""

import keras
import tensorflow as tf

from recipes.detection import label_encoder


def focal_loss(classes, logits, alpha, gamma):
    """The focal loss (Lin et al. 2017, equation 5) over anchors and classes.

    With y = 1 for an anchor's own class, else 0, and p = sigmoid(logit):

        y = 1: -alpha       * (1 - p)**gamma * log(p)
        y = 0: -(1 - alpha) * p**gamma       * log(1 - p)

    Args:
        classes: int32 `(N, A)`. Ignored anchors count nothing.
        logits: float32 `(N, A, K)`.
        alpha: Weight of an anchor's own class, between 0 and 1.
        gamma: How much less counts what is well classified, at least 0.

    Returns:
        float32 `(N,)`.
    """
    own = tf.one_hot(classes, tf.shape(logits)[-1])
    # The probability of an error is sigmoid(wrong). Of a plain power of it, as
    # in Keras' binary_focal_crossentropy, the gradient is NaN for gamma < 1
    # where the probability is 0 in float32: from logits of 17 on. Taken as a
    # logarithm it is right everywhere.
    wrong = tf.where(own > 0, -logits, logits)
    cross_entropy = tf.nn.softplus(wrong)
    modulation = tf.exp(-gamma * tf.nn.softplus(-wrong))
    weights = tf.where(own > 0, alpha, 1 - alpha)
    is_asked = tf.cast(classes != label_encoder.IGNORED, logits.dtype)
    loss = weights * modulation * cross_entropy * is_asked[..., None]
    return tf.reduce_sum(loss, axis=(1, 2))


def huber_loss(classes, deltas, predicted, delta):
    """The Huber loss over positive anchors and their four deltas.

    Args:
        classes: int32 `(N, A)`.
        deltas: float32 `(N, A, 4)`, what is true.
        predicted: float32 `(N, A, 4)`.
        delta: The error from which on the loss grows linearly.

    Returns:
        float32 `(N,)`.
    """
    # Keras takes the mean of an anchor's errors.
    errors = 4.0 * keras.losses.huber(deltas, predicted, delta)
    return tf.reduce_sum(errors * _is_positive(classes), axis=1)


def count_positives(classes):
    """Anchors that belong to a box, float32 `(N,)`, of classes `(N, A)`."""
    return tf.reduce_sum(_is_positive(classes), axis=1)


def _is_positive(classes):
    return tf.cast(classes >= 0, tf.float32)
