"""Images as the network sees them, in [-1, 1], in training and evaluation.

Every random choice is a function of a seed of two numbers, so that an example
comes out the same whenever it is asked for.
"""

import tensorflow as tf

from recipes import keras_augment

# Inception's distorted crop (Szegedy et al. 2015, section 6).
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
# The share of the shorter side that evaluation looks at: 224 of 256.
CENTER = 0.875
# The border of a random shift, as a share of the image.
SHIFT = 1 / 8
BRIGHTNESS = 32 / 255
SATURATION = (0.5, 1.5)


def trainer(config, source):
    """`f(image, seed)` that gives the augmented training image."""
    kind = _kind(config, source)
    further = keras_augment.make(config, source.num_channels)

    def augment(image, seed):
        return train_image(
            image, seed, kind, config.image_size, source.num_channels, further
        )

    return augment


def evaluator(config, source):
    """`f(image)` that gives the evaluation image."""
    kind = _kind(config, source)

    def prepare(image):
        size = config.image_size
        return eval_image(image, kind, size, source.num_channels)

    return prepare


def _kind(config, source):
    if config.augmentation == "auto":
        return source.augmentation
    return config.augmentation


def train_image(image, seed, augmentation, size, num_channels, further=None):
    """An augmented training image.

    Args:
        image: uint8 `(height, width, channels)`, or the bytes of a JPEG or PNG.
        seed: Two integers.
        augmentation: `"inception"`, `"crop_flip"`, `"crop"` or `"none"`.
        size: Height and width of the result.
        num_channels: Colors of the result.
        further: `f(image, seed)` for the image in [0, 255] at the end, or None.

    Returns:
        float32 `(size, size, num_channels)` in [-1, 1].
    """
    crop_seed, flip_seed, color_seed = tf.unstack(
        tf.random.split(seed, 3), axis=0
    )
    if augmentation == "inception":
        image = _crop(
            image, lambda shape: _distorted_box(shape, crop_seed), num_channels
        )
        image = _flip(_resize(image, size), flip_seed)
        image = _distort_color(image, color_seed, num_channels)
    else:
        image = _resize(_decode(image, num_channels), size)
    if augmentation in ("crop_flip", "crop"):
        image = _shift(image, crop_seed, size, num_channels)
    if augmentation == "crop_flip":
        image = _flip(image, flip_seed)
    if further is not None:
        image = further(_clip(image), tf.random.fold_in(seed, 3))
    return _finish(image)


def eval_image(image, augmentation, size, num_channels):
    """An evaluation image: the center where training crops, else all of it.

    Args and returns: as `train_image`.
    """
    if augmentation == "inception":
        image = _crop(image, _center_box, num_channels)
    else:
        image = _decode(image, num_channels)
    return _finish(_resize(image, size))


def _clip(image):
    return tf.clip_by_value(image, 0.0, 255.0)


def _finish(image):
    return _clip(image) / 127.5 - 1.0


def _resize(image, size):
    return tf.image.resize(image, (size, size))


def _flip(image, seed):
    return tf.image.stateless_random_flip_left_right(image, seed)


def _decode(image, num_channels):
    if image.dtype != tf.string:
        return image
    image = tf.io.decode_image(image, num_channels, expand_animations=False)
    image.set_shape((None, None, num_channels))
    return image


def _crop(image, choose_box, num_channels):
    """The box of an image, decoded; of a JPEG without the rest.

    Args:
        image: As `train_image`.
        choose_box: `f(shape)` gives the box `(top, left, height, width)`.
        num_channels: Colors of the result.
    """

    def crop_decoded():
        whole = _decode(image, num_channels)
        top, left, height, width = tf.unstack(choose_box(tf.shape(whole)))
        return whole[top : top + height, left : left + width]

    def crop_jpeg():
        box = choose_box(tf.image.extract_jpeg_shape(image))
        return tf.io.decode_and_crop_jpeg(image, box, num_channels)

    if image.dtype != tf.string:
        return crop_decoded()
    cropped = tf.cond(tf.image.is_jpeg(image), crop_jpeg, crop_decoded)
    cropped.set_shape((None, None, num_channels))
    return cropped


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


def _center_box(shape):
    height, width = shape[0], shape[1]
    shorter = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter * CENTER), tf.int32), 1)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def _shift(image, seed, size, num_channels):
    border = max(round(size * SHIFT), 1)
    padded = tf.pad(image, [[border, border], [border, border], [0, 0]])
    return tf.image.stateless_random_crop(
        padded, (size, size, num_channels), seed
    )


def _distort_color(image, seed, num_channels):
    brightness_seed, saturation_seed = tf.unstack(
        tf.random.split(seed, 2), axis=0
    )
    image = image / 255.0
    image = tf.image.stateless_random_brightness(
        image, BRIGHTNESS, brightness_seed
    )
    if num_channels == 3:
        image = tf.image.stateless_random_saturation(
            image, *SATURATION, saturation_seed
        )
    return image * 255.0
