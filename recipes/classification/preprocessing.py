"""Images as the network sees them, in [-1, 1], in training and evaluation.

Every random choice is a function of a seed of two numbers, so that an example
comes out the same whenever it is asked for.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from recipes.classification import random_augment
from recipes.data import image_files

# Inception's distorted crop (Szegedy et al. 2015, section 6).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
# The share of the shorter side that evaluation looks at: 224 of 256.
CENTER = 0.875
# The border of a random shift, as a share of the image.
SHIFT = 1 / 8
BRIGHTNESS = 32 / 255
SATURATION = (0.5, 1.5)
# What the seed of an example is folded with, for each use of its own.
CROP, FLIP, COLOR, FURTHER = range(4)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What becomes of an image, in two functions of tensors in a graph.

    Only the first can fail over a bad file. It is kept small: `bad_images`
    runs it where each operation costs more.

    Attributes:
        shape: `(size, size, channels)` of the finished image.
        crop: `f(image, seed)` gives the pixels that are used, uint8 `(height,
            width, channels)`, of such pixels or of a file's bytes.
        crop_jpeg: As `crop`, of the bytes of a JPEG: without decoding the rest.
        finish: `f(pixels, seed)` gives the float32 image in [-1, 1].
    """

    shape: tuple
    crop: Callable
    crop_jpeg: Callable
    finish: Callable

    def __call__(self, image, seed):
        """The finished image; `seed` is two integers, int64 as all here."""
        if image.dtype != tf.string:
            return self.finish(self.crop(image, seed), seed)
        pixels = tf.cond(
            tf.image.is_jpeg(image),
            lambda: self.crop_jpeg(image, seed),
            lambda: self.crop(image, seed),
        )
        return self.finish(pixels, seed)


def training_preprocessing(config, source):
    """The preparation of a training image."""
    num_channels = source.num_channels
    shape = (config.image_size, config.image_size, num_channels)
    further = random_augment.make_random_augment(config, num_channels)
    kind = _kind(config, source)
    box = _distorted_box if kind == "inception" else None

    def finish(pixels, seed):
        image = _resize(pixels, shape)
        if kind in ("crop_flip", "crop"):
            image = _shift(image, _fold(seed, CROP))
        if kind in ("inception", "crop_flip"):
            image = tf.image.stateless_random_flip_left_right(
                image, _fold(seed, FLIP)
            )
        if kind == "inception":
            image = _distort_color(image, _fold(seed, COLOR), num_channels)
        if further is not None:
            image = further(_clip(image) * 255.0, _fold(seed, FURTHER)) / 255.0
        return _finish(image)

    return Preprocessing(shape, *_croppers(box, num_channels), finish)


def evaluation_preprocessing(config, source):
    """The preparation of an evaluation image: its center, where it is large."""
    box = _center_box if _kind(config, source) == "inception" else None
    shape = (config.image_size, config.image_size, source.num_channels)
    return Preprocessing(
        shape,
        *_croppers(box, source.num_channels),
        lambda pixels, seed: _finish(_resize(pixels, shape)),
    )


def _kind(config, source):
    if config.augmentation == "auto":
        return source.augmentation
    return config.augmentation


def _croppers(choose_box, num_channels):
    """`crop` and `crop_jpeg` of `Preparation`.

    Args:
        choose_box: `f(shape, seed)` gives the box `(top, left, height, width)`,
            or None where the whole image is taken.
        num_channels: Colors of the result.
    """

    def with_channels(pixels):
        return tf.ensure_shape(pixels, (None, None, num_channels))

    def crop(image, seed):
        if image.dtype == tf.string:
            image = image_files.decode(image, num_channels)
        image = with_channels(image)
        if choose_box is None:
            return image
        box = choose_box(tf.shape(image), _fold(seed, CROP))
        top, left, height, width = tf.unstack(box)
        return image[top : top + height, left : left + width]

    def crop_jpeg(image, seed):
        if choose_box is None:
            return with_channels(tf.io.decode_jpeg(image, num_channels))
        shape = tf.image.extract_jpeg_shape(image)
        box = choose_box(shape, _fold(seed, CROP))
        return with_channels(
            tf.io.decode_and_crop_jpeg(image, box, num_channels)
        )

    return crop, crop_jpeg


def _fold(seed, use):
    return tf.random.fold_in(seed, use)


def _clip(image):
    return tf.clip_by_value(image, 0.0, 1.0)


def _finish(image):
    return _clip(image) * 2.0 - 1.0


def _resize(pixels, shape):
    """float32 of that shape, in [0, 1]."""
    return tf.ensure_shape(tf.image.resize(pixels, shape[:2]) / 255.0, shape)


def _distorted_box(shape, seed):
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        bounding_boxes=tf.zeros((1, 0, 4)),
        seed=seed,
        min_object_covered=0.0,
        aspect_ratio_range=CROP_RATIO,
        area_range=CROP_AREA,
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], axis=0)


def _center_box(shape, seed):
    del seed
    height, width = shape[0], shape[1]
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter * CENTER), tf.int32), 1)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def _shift(image, seed):
    border = max(round(image.shape[0] * SHIFT), 1)
    padded = tf.pad(image, [[border, border], [border, border], [0, 0]])
    return tf.image.stateless_random_crop(padded, image.shape, seed)


def _distort_color(image, seed, num_channels):
    brightness_seed, saturation_seed = tf.unstack(
        tf.random.split(seed, 2), axis=0
    )
    image = tf.image.stateless_random_brightness(
        image, BRIGHTNESS, brightness_seed
    )
    if num_channels == 3:
        image = tf.image.stateless_random_saturation(
            image, *SATURATION, saturation_seed
        )
    return image
