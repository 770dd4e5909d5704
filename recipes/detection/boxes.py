"""What is computed of boxes: areas, overlaps, and offsets from anchors.

A box is `[ymin, xmin, ymax, xmax]`, float32, in pixels of the image that it
belongs to. Its edges are real numbers: a box over the first pixel of an image
is `[0, 0, 1, 1]`. Where an edge lies before its opposite, the box is empty.
"""

import math

import keras
import tensorflow as tf

# The most by which a side may grow over its anchor's, as a logarithm: to 1000
# pixels from 16, the limit that Detectron's Faster R-CNN set.
MAX_LOG_GROWTH = math.log(1000 / 16)
FORMAT = "yxyx"


def area(boxes):
    """Areas `(...)` of boxes `(..., 4)`; 0 for empty ones."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def iou(a, b):
    """Intersection over union `(n, m)` of boxes `(n, 4)` and `(m, 4)`.

    It is 0 where a box is empty.
    """
    # Keras' compute_iou takes a pair of reversed edges for a positive area.
    shared = _intersection(a, b)
    union = area(a)[:, None] + area(b) - shared
    return tf.math.divide_no_nan(shared, union)


def coverage(a, b):
    """The share `(n, m)` of each box a `(n, 4)` that lies in b `(m, 4)`.

    It is 0 where a box is empty.
    """
    return tf.math.divide_no_nan(_intersection(a, b), area(a)[:, None])


def encode(boxes, anchors):
    """The deltas `(dy, dx, dh, dw)` that lead from anchors to boxes.

    The center moves by `dy` and `dx` of the anchor's height and width, which
    grow by the factors `exp(dh)` and `exp(dw)`. The deltas of empty boxes are
    finite, too: a side is taken to be at least `keras.config.epsilon()`.

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
    """The boxes that deltas lead to, the inverse of `encode`.

    A side grows by 1000 / 16 at most, so that no delta overflows.

    Args:
        deltas: `(..., A, 4)`.
        anchors: `(A, 4)`.

    Returns:
        float32 `(..., A, 4)`.
    """
    moves, growths = tf.split(deltas, 2, axis=-1)
    growths = tf.minimum(growths, MAX_LOG_GROWTH)
    return keras.utils.bounding_boxes.decode_deltas_to_boxes(
        anchors,
        tf.concat([moves, growths], axis=-1),
        anchor_format=FORMAT,
        box_format=FORMAT,
    )


def clip(boxes, height, width):
    """Boxes `(..., 4)` cut off at the borders of an image."""
    limits = tf.cast(tf.stack([height, width, height, width]), boxes.dtype)
    return tf.clip_by_value(boxes, 0.0, limits)


def _intersection(a, b):
    """Areas `(n, m)` that boxes `(n, 4)` and `(m, 4)` share."""
    ymin_a, xmin_a, ymax_a, xmax_a = tf.split(a, 4, axis=-1)
    ymin_b, xmin_b, ymax_b, xmax_b = tf.unstack(b, axis=-1)
    height = tf.minimum(ymax_a, ymax_b) - tf.maximum(ymin_a, ymin_b)
    width = tf.minimum(xmax_a, xmax_b) - tf.maximum(xmin_a, xmin_b)
    return tf.maximum(height, 0.0) * tf.maximum(width, 0.0)
