"""Preprocessing and augmentation of images with boxes.

All random choices depend only on a stateless seed, so that an example is always
augmented in the same way.
"""

import numpy as np
import tensorflow as tf

from recipes.detection import boxes as boxes_lib

# A box is kept if at least this fraction of its area is visible, and if its
# height and width are at least this number of pixels.
MIN_VISIBLE = 0.5
MIN_SIDE = 1.0
# Folded into the seed of an example, one for each random operation.
FLIP, SCALE, CROP = range(3)


def training_preprocessing(config):
    """Returns the function that augments a training example.

    It applies a random flip, random scaling and a random crop.

    Args:
        config: Config with `image_size`, `flip`, and the bounds
            `scale_jitter_min` and `scale_jitter_max` of the random factor by
            which the image is larger than in evaluation.

    Returns:
        `f(image, boxes, seed)` for an uint8 image `(height, width, 3)`, float32
        boxes `(n, 4)` in pixels and an int64 seed `(2,)`. It returns a tuple of

        * the image, float32 `(image_size, image_size, 3)` in [-1, 1]. Smaller
          images are padded at the bottom and right with 0, a mid gray. Larger
          images are randomly cropped.
        * the boxes `(n, 4)` in pixels, clipped to the visible image.
        * bool `(n,)`, the boxes to keep. Boxes that lost more than half of
          their area, or are smaller than one pixel, are removed.
    """
    size = config.image_size

    def preprocess(image, boxes, seed):
        if config.flip:
            image, boxes = _flip(image, boxes, _fold(seed, FLIP))
        factor = tf.random.stateless_uniform(
            (),
            _fold(seed, SCALE),
            config.scale_jitter_min,
            config.scale_jitter_max,
        )
        longer = tf.maximum(tf.cast(tf.round(factor * size), tf.int32), 1)
        image, boxes = _scale(image, boxes, longer)
        room = tf.maximum(tf.shape(image)[:2] - size, 0)
        # Uniform over the room + 1 positions along each side.
        position = tf.random.stateless_uniform((2,), _fold(seed, CROP))
        corner = tf.cast(position * tf.cast(room + 1, tf.float32), tf.int32)
        return _crop_and_pad(image, boxes, corner, size)

    return preprocess


def evaluation_preprocessing(config):
    """Returns the function that preprocesses an evaluation example.

    Returns:
        `f(image, boxes, seed)` as in `training_preprocessing`. The whole image
        is visible; its longer side becomes `config.image_size`. To convert a
        box back to the original image, divide y by `scaled_height / height` and
        x by `scaled_width / width`; see `scaled_size`.
    """
    size = config.image_size

    def preprocess(image, boxes, seed):
        del seed
        image, boxes = _scale(image, boxes, size)
        return _crop_and_pad(image, boxes, (0, 0), size)

    return preprocess


def scaled_size(height, width, longer):
    """Returns height and width of an image scaled to the longer side `longer`.

    Sides are rounded and at least 1. The arguments and results are integers of
    Python or NumPy, or integer tensors.
    """
    has_tensor = any(tf.is_tensor(side) for side in (height, width, longer))
    maximum = tf.maximum if has_tensor else np.maximum
    before = maximum(height, width)
    # Integer arithmetic rounds equally in Python, NumPy and TensorFlow.
    return tuple(
        maximum((2 * side * longer + before) // (2 * before), 1)
        for side in (height, width)
    )


def _fold(seed, use):
    return tf.random.fold_in(seed, use)


def _flip(image, boxes, seed):
    """Flips image and boxes horizontally with probability 1/2."""

    def flip():
        ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
        width = tf.cast(tf.shape(image)[1], tf.float32)
        flipped = tf.stack([ymin, width - xmax, ymax, width - xmin], axis=-1)
        return tf.reverse(image, axis=[1]), flipped

    is_flipped = tf.random.stateless_uniform((), seed) < 0.5
    return tf.cond(is_flipped, flip, lambda: (image, boxes))


def _scale(image, boxes, longer):
    """Scales an image, to float32, and its boxes to a longer side."""
    before = tf.shape(image)[:2]
    after = tf.stack(scaled_size(before[0], before[1], longer))

    # Antialiasing does not change an enlarged image, but takes three times as
    # long.
    image = tf.cond(
        tf.reduce_all(after >= before),
        lambda: tf.image.resize(image, after),
        lambda: tf.image.resize(image, after, antialias=True),
    )
    return image, boxes * tf.tile(tf.cast(after / before, tf.float32), [2])


def _crop_and_pad(image, boxes, corner, size):
    """Crops from a corner `(y, x)`, pads, and clips and filters the boxes."""
    top, left = corner[0], corner[1]
    image = image[top : top + size, left : left + size]
    height, width = tf.unstack(tf.shape(image)[:2])
    # Padding after normalization is 0 in the input of the network.
    image = tf.clip_by_value(image / 127.5 - 1.0, -1.0, 1.0)
    image = tf.pad(image, [[0, size - height], [0, size - width], [0, 0]])
    shifted = boxes - tf.cast(tf.stack([top, left, top, left]), tf.float32)
    visible = boxes_lib.clip(shifted, height, width)
    is_visible = boxes_lib.area(visible) >= MIN_VISIBLE * boxes_lib.area(
        shifted
    )
    is_large = tf.reduce_all(
        visible[:, 2:] - visible[:, :2] >= MIN_SIDE, axis=-1
    )
    return (
        tf.ensure_shape(image, (size, size, 3)),
        visible,
        is_visible & is_large,
    )
