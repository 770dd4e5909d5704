"""Preprocessing of images to [-1, 1], in training and evaluation.

To add an augmentation, add it to `AUGMENTATIONS`; it becomes a choice of
`--augmentation`. Every random choice is a function of a seed, so that an
example is the same every time it is read.
"""

import dataclasses
from collections.abc import Callable

from etils import epy

from recipes.config.setting import setting

# Reading the settings does not load TensorFlow.
with epy.lazy_imports():
    import tensorflow as tf

    from recipes.classification import random_augment
    from recipes.data import image_files

# Inception's distorted crop (Szegedy et al. 2015, section 6).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
# Fraction of the shorter side that evaluation crops: 224 of 256.
CENTER_FRACTION = 0.875
# Largest random shift as a fraction of the image.
SHIFT_FRACTION = 1 / 8
BRIGHTNESS = 32 / 255
SATURATION = (0.5, 1.5)
# Folded into the seed of an example, so that each use has its own seed.
CROP, FLIP, COLOR, FURTHER = range(4)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes to training images.

    Attributes:
        train_box: `f(shape, seed)` returns the box `(top, left, height, width)`
            to crop before resizing, or None for the whole image.
        eval_box: The same in evaluation.
        change: `f(image, seed)` changes the resized image, whose values are in
            [0, 1]; None for no change.
    """

    train_box: Callable | None = None
    eval_box: Callable | None = None
    change: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of one image, in two functions of tensors in a graph.

    Only the first function can fail, for a damaged file. It has few operations,
    because they are expensive inside of `BadImages.decode_safely`.

    Attributes:
        shape: `(size, size, channels)` of the preprocessed image.
        crop: `f(image, seed)` returns the cropped pixels, uint8 `(height,
            width, channels)`, of such pixels or of a file's bytes.
        crop_jpeg: The same for the bytes of a JPEG, decoding only the crop.
        finish: `f(pixels, seed)` returns the float32 image in [-1, 1].
    """

    shape: tuple
    crop: Callable
    crop_jpeg: Callable
    finish: Callable

    def __call__(self, image, seed):
        """Returns the preprocessed image.

        Args:
            image: Pixels, or a scalar string tensor with a file's bytes.
            seed: int64 `(2,)`.
        """
        if image.dtype != tf.string:
            return self.finish(self.crop(image, seed), seed)
        pixels = tf.cond(
            tf.image.is_jpeg(image),
            lambda: self.crop_jpeg(image, seed),
            lambda: self.crop(image, seed),
        )
        return self.finish(pixels, seed)


def training_preprocessing(config, source):
    """Returns the `Preprocessing` of training images."""
    num_channels = source.num_channels
    shape = (config.image_size, config.image_size, num_channels)
    augment = random_augment.make_random_augment(config, num_channels)
    augmentation = _get_augmentation(config, source)

    def finish(pixels, seed):
        image = _resize(pixels, shape)
        if augmentation.change is not None:
            image = augmentation.change(image, seed)
        if augment is not None:
            image = augment(_clip(image) * 255.0, _fold(seed, FURTHER)) / 255.0
        return _to_network_range(image)

    crops = _make_crops(augmentation.train_box, num_channels)
    return Preprocessing(shape, *crops, finish)


def evaluation_preprocessing(config, source):
    """Returns the `Preprocessing` of evaluation images."""
    shape = (config.image_size, config.image_size, source.num_channels)
    augmentation = _get_augmentation(config, source)
    crops = _make_crops(augmentation.eval_box, source.num_channels)
    return Preprocessing(
        shape,
        *crops,
        lambda pixels, seed: _to_network_range(_resize(pixels, shape)),
    )


def _get_augmentation(config, source):
    name = config.augmentation
    return AUGMENTATIONS[source.augmentation if name == "auto" else name]


def _make_crops(choose_box, num_channels):
    """Returns `crop` and `crop_jpeg` of `Preprocessing`.

    Args:
        choose_box: `f(shape, seed)` returns the box `(top, left, height,
            width)`, or None for the whole image.
        num_channels: Number of channels of the result.
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


def _to_network_range(image):
    return _clip(image) * 2.0 - 1.0


def _resize(pixels, shape):
    """Returns a float32 image of a shape in [0, 1]."""
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
    side = tf.cast(tf.round(shorter * CENTER_FRACTION), tf.int32)
    side = tf.maximum(side, 1)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def _shift(image, seed):
    border = max(round(image.shape[0] * SHIFT_FRACTION), 1)
    padded = tf.pad(image, [[border, border], [border, border], [0, 0]])
    return tf.image.stateless_random_crop(
        padded, image.shape, _fold(seed, CROP)
    )


def _flip(image, seed):
    return tf.image.stateless_random_flip_left_right(image, _fold(seed, FLIP))


def _shift_and_flip(image, seed):
    return _flip(_shift(image, seed), seed)


def _flip_and_distort_color(image, seed):
    image = _flip(image, seed)
    seeds = tf.random.split(_fold(seed, COLOR), 2)
    image = tf.image.stateless_random_brightness(image, BRIGHTNESS, seeds[0])
    if image.shape[-1] == 3:
        image = tf.image.stateless_random_saturation(
            image, *SATURATION, seeds[1]
        )
    return image


AUGMENTATIONS = {
    "inception": Augmentation(
        _distorted_box, _center_box, _flip_and_distort_color
    ),
    "crop_flip": Augmentation(change=_shift_and_flip),
    "crop": Augmentation(change=_shift),
    "none": Augmentation(),
}


@dataclasses.dataclass(frozen=True)
class PreprocessingSettings:
    """Augmentation by name"""

    augmentation: str = setting(
        "auto",
        "Augmentation of training images. auto selects the one that suits the "
        "dataset.",
        choices=("auto", *AUGMENTATIONS),
    )
