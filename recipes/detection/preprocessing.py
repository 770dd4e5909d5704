"""Images and their boxes as the network sees them, in training and evaluation.

Every random choice is a function of a seed of two numbers, so that an example
comes out the same whenever it is asked for.
"""

import numpy as np
import tensorflow as tf

from recipes.detection import boxes as boxes_lib

# A box stays if at least this share of its area is seen, and if it is at least
# so many pixels high and wide.
MIN_VISIBLE = 0.5
MIN_SIDE = 1.0
# What the seed of an example is folded with, for each use of its own.
FLIP, SCALE, CROP = range(3)


def training_preprocessing(config):
    """The preparation of a training example: flipped, scaled and cut out.

    Args:
        config: Of it are used `image_size`, `flip`, and `scale_jitter_min` and
            `scale_jitter_max`, between which lies the random factor by which
            the picture is larger than in evaluation.

    Returns:
        `f(image, boxes, seed)`, where the image is uint8 `(height, width, 3)`,
        the boxes are float32 `(n, 4)` in its pixels, and the seed is int64
        `(2,)`. It returns

        * the image, float32 `(image_size, image_size, 3)` in [-1, 1]. A picture
          that does not fill it lies at the top left; the rest is 0, a mid gray.
          Of a larger one there is a random part.
        * the boxes `(n, 4)` in its pixels, cut off where the picture ends;
        * bool `(n,)`, whether to keep a box: those that lost more than half of
          their area are not, nor are those below a pixel in height or width.
    """
    size = config.image_size

    def prepare(image, boxes, seed):
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
        # Evenly one of the room + 1 places on either side.
        share = tf.random.stateless_uniform((2,), _fold(seed, CROP))
        corner = tf.cast(share * tf.cast(room + 1, tf.float32), tf.int32)
        return _place(image, boxes, corner, size)

    return prepare


def evaluation_preprocessing(config):
    """The preparation of an evaluation example: scaled to the image's size.

    Returns:
        `f(image, boxes, seed)` as that of `training`. The longer side of the
        picture is `config.image_size`; all of it is seen. A box is back in the
        pixels of its image when its ordinates are divided by `scaled_height /
        height` and its abscissas by `scaled_width / width`; see `scaled_size`.
    """
    size = config.image_size

    def prepare(image, boxes, seed):
        del seed
        image, boxes = _scale(image, boxes, size)
        return _place(image, boxes, (0, 0), size)

    return prepare


def scaled_size(height, width, longer):
    """Height and width of a picture whose longer side becomes `longer`.

    Sides are rounded, and at least 1. All are integers of Python or NumPy, or
    integer tensors; so is what returns.
    """
    has_tensor = any(tf.is_tensor(side) for side in (height, width, longer))
    maximum = tf.maximum if has_tensor else np.maximum
    before = maximum(height, width)
    # In integers, whose rounding is the same in all these kinds of numbers.
    return tuple(
        maximum((2 * side * longer + before) // (2 * before), 1)
        for side in (height, width)
    )


def _fold(seed, use):
    return tf.random.fold_in(seed, use)


def _flip(image, boxes, seed):
    """Image and boxes, or with probability 1/2 their mirror images."""

    def mirrored():
        ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=-1)
        width = tf.cast(tf.shape(image)[1], tf.float32)
        turned = tf.stack([ymin, width - xmax, ymax, width - xmin], axis=-1)
        return tf.reverse(image, axis=[1]), turned

    is_mirrored = tf.random.stateless_uniform((), seed) < 0.5
    return tf.cond(is_mirrored, mirrored, lambda: (image, boxes))


def _scale(image, boxes, longer):
    """The image float32, its longer side of that length, and its boxes."""
    before = tf.shape(image)[:2]
    after = tf.stack(scaled_size(before[0], before[1], longer))

    # Enlarged, a picture is the same either way, but takes three times as long
    # with antialiasing.
    image = tf.cond(
        tf.reduce_all(after >= before),
        lambda: tf.image.resize(image, after),
        lambda: tf.image.resize(image, after, antialias=True),
    )
    return image, boxes * tf.tile(tf.cast(after / before, tf.float32), [2])


def _place(image, boxes, corner, size):
    """What `training` returns, of the picture from a corner `(y, x)` on."""
    top, left = corner[0], corner[1]
    image = image[top : top + size, left : left + size]
    height, width = tf.unstack(tf.shape(image)[:2])
    # Padded in [-1, 1]: the padding is 0 in the network's input.
    image = tf.clip_by_value(image / 127.5 - 1.0, -1.0, 1.0)
    image = tf.pad(image, [[0, size - height], [0, size - width], [0, 0]])
    moved = boxes - tf.cast(tf.stack([top, left, top, left]), tf.float32)
    seen = boxes_lib.clip(moved, height, width)
    is_whole = boxes_lib.area(seen) >= MIN_VISIBLE * boxes_lib.area(moved)
    is_large = tf.reduce_all(seen[:, 2:] - seen[:, :2] >= MIN_SIDE, axis=-1)
    return tf.ensure_shape(image, (size, size, 3)), seen, is_whole & is_large
