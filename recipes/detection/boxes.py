"""Operations on boxes: area, IoU, clipping, and encoding as deltas.

A box is `[ymin, xmin, ymax, xmax]`, float32, in pixels of its image. Edges are
real numbers: a box that covers the first pixel is `[0, 0, 1, 1]`. A box with
`ymax < ymin` or `xmax < xmin` is empty.
"""

import math

import keras
import tensorflow as tf

# Logarithm of the largest ratio of a box side to its anchor's side: 1000 pixels
# to 16 pixels, as in Detectron's Faster R-CNN.
MAX_LOG_GROWTH = math.log(1000 / 16)
FORMAT = "yxyx"


def area(boxes):
    """Computes the areas `(...)` of boxes `(..., 4)`; 0 for empty boxes."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(a, b):
    """Computes the IoU `(n, m)` of boxes `(n, 4)` and `(m, 4)`.

    The IoU of an empty box is 0.
    """
    # Keras' compute_iou returns a positive area if both edges are reversed.
    intersection = _intersection(a, b)
    union = area(a)[:, None] + area(b) - intersection
    return tf.math.divide_no_nan(intersection, union)


def coverage(a, b):
    """Computes the fraction `(n, m)` of each box a `(n, 4)` inside b `(m, 4)`.

    The fraction of an empty box is 0.
    """
    return tf.math.divide_no_nan(_intersection(a, b), area(a)[:, None])


def encode(boxes, anchors):
    """Encodes boxes as deltas `(dy, dx, dh, dw)` from anchors.

    `dy` and `dx` are the shift of the center relative to the anchor's height
    and width. `exp(dh)` and `exp(dw)` are the ratios of the sides. The deltas
    of empty boxes are finite as well, because sides are at least
    `keras.config.epsilon()`.

    Args:
        boxes: `(n, 4)`.
        anchors: `(n, 4)`, one for each box.

    Returns:
        float32 `(n, 4)`.
    """
    return keras.utils.bounding_boxes.encode_box_to_deltas(
        anchors, boxes, anchor_format=FORMAT, box_format=FORMAT
    )


def decode(deltas, anchors):
    """Decodes deltas from anchors to boxes, the inverse of `encode`.

    The ratio of a box side to its anchor's side is at most 1000 / 16, so that
    no delta overflows.

    Args:
        deltas: `(..., A, 4)`.
        anchors: `(A, 4)`.

    Returns:
        float32 `(..., A, 4)`.
    """
    shifts, log_ratios = tf.split(deltas, 2, axis=-1)
    log_ratios = tf.minimum(log_ratios, MAX_LOG_GROWTH)
    return keras.utils.bounding_boxes.decode_deltas_to_boxes(
        anchors,
        tf.concat([shifts, log_ratios], axis=-1),
        anchor_format=FORMAT,
        box_format=FORMAT,
    )


def clip(boxes, height, width):
    """Clips boxes `(..., 4)` to an image."""
    limits = tf.cast(tf.stack([height, width, height, width]), boxes.dtype)
    return tf.clip_by_value(boxes, 0.0, limits)


def _intersection(a, b):
    """Computes the intersection `(n, m)` of boxes `(n, 4)` and `(m, 4)`."""
    ymin_a, xmin_a, ymax_a, xmax_a = tf.split(a, 4, axis=-1)
    ymin_b, xmin_b, ymax_b, xmax_b = tf.unstack(b, axis=-1)
    height = tf.minimum(ymax_a, ymax_b) - tf.maximum(ymin_a, ymin_b)
    width = tf.minimum(xmax_a, xmax_b) - tf.maximum(xmin_a, xmin_b)
    return tf.maximum(height, 0.0) * tf.maximum(width, 0.0)
