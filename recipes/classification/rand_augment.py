"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) in TensorFlow operations.

Each operation is a function of a float32 RGB image `(height, width, 3)` in
[0, 255] and a level from -1 to 1. Level 0 leaves the image unchanged, except
for `auto_contrast` and `equalize`, which ignore the level. The level scales the
range that the paper gives at strength 10. Photometric operations
equal Pillow's up to rounding.
"""

import functools

import tensorflow as tf

NUM_OPS = 2
# Ranges at strength 10.
SHEAR = 0.3
TRANSLATION = 0.45
ROTATION_DEGREES = 30.0
ENHANCEMENT = 0.9
POSTERIZED_BITS = 4.0
# Gray of the pixels that a geometric operation moves in from outside.
FILL = 128.0
# Weights of red, green and blue in Pillow's gray.
LUMA = (0.299, 0.587, 0.114)


def rand_augment(strength, num_channels):
    """Returns `f(image, seed)`, which applies `NUM_OPS` random operations.

    Gray images are augmented as RGB images with three equal channels.

    Args:
        strength: Upper bound of the strength from 0 to 10. Each operation draws
            its own strength uniformly, and its direction.
        num_channels: 1 or 3.
    """
    limit = strength / 10.0

    def augment(image, seed):
        if num_channels == 1:
            image = tf.repeat(image, 3, axis=-1)
        for number in range(NUM_OPS):
            seeds = tf.random.split(tf.random.fold_in(seed, number), 2)
            which = tf.random.stateless_uniform(
                (), seeds[0], maxval=len(OPERATIONS), dtype=tf.int32
            )
            level = tf.random.stateless_uniform((), seeds[1], -limit, limit)
            image = tf.switch_case(
                which,
                [
                    functools.partial(operation, image, level)
                    for operation in OPERATIONS.values()
                ],
            )
        return image[..., :num_channels]

    return augment


def identity(image, level):
    del level
    return tf.identity(image)


def auto_contrast(image, level):
    """Stretches each channel to [0, 255]."""
    del level
    low = tf.reduce_min(image, axis=(0, 1))
    extent = tf.reduce_max(image, axis=(0, 1)) - low
    stretched = (image - low) * tf.math.divide_no_nan(255.0, extent)
    return tf.where(extent > 0, stretched, image)


def equalize(image, level):
    """Equalizes the histogram of each channel."""
    del level
    pixels = tf.cast(image, tf.int32)
    channels = tf.unstack(pixels, axis=-1)
    return tf.stack([_equalize_channel(each) for each in channels], axis=-1)


def _equalize_channel(pixels):
    counts = tf.math.bincount(
        tf.reshape(pixels, [-1]), minlength=256, maxlength=256
    )
    last = counts[tf.reduce_max(pixels)]
    step = (tf.reduce_sum(counts) - last) // 255
    below = tf.cumsum(counts, exclusive=True)
    table = (below + step // 2) // tf.maximum(step, 1)
    equalized = tf.gather(tf.clip_by_value(table, 0, 255), pixels)
    return tf.cast(tf.where(step > 0, equalized, pixels), tf.float32)


def rotate(image, level):
    """Rotates counterclockwise by up to 30 degrees."""
    angle = level * (ROTATION_DEGREES / 180.0 * 3.141592653589793)
    cos, sin = tf.cos(angle), tf.sin(angle)
    height, width = image.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    return _transform(
        image,
        (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y),
    )


def shear_x(image, level):
    return _transform(image, (1, level * SHEAR, 0, 0, 1, 0))


def shear_y(image, level):
    return _transform(image, (1, 0, 0, level * SHEAR, 1, 0))


def translate_x(image, level):
    shift = level * TRANSLATION * image.shape[1]
    return _transform(image, (1, 0, shift, 0, 1, 0))


def translate_y(image, level):
    shift = level * TRANSLATION * image.shape[0]
    return _transform(image, (1, 0, 0, 0, 1, shift))


def _transform(image, matrix):
    """Applies an affine transformation with bilinear interpolation.

    Args:
        image: `(height, width, channels)`.
        matrix: `(a, b, c, d, e, f)`. The output at `(x, y)` is the input at
            `(a x + b y + c, d x + e y + f)`.
    """
    row = tf.stack([tf.cast(each, tf.float32) for each in (*matrix, 0, 0)])
    output = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=row[None],
        output_shape=image.shape[:2].as_list(),
        fill_value=FILL,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(output[0], image.shape)


def brightness(image, level):
    return _blend(tf.zeros_like(image), image, level)


def color(image, level):
    return _blend(_gray(image), image, level)


def contrast(image, level):
    mean = tf.round(tf.reduce_mean(_gray(image)))
    return _blend(tf.fill(tf.shape(image), mean), image, level)


def sharpness(image, level):
    """Blends with a smoothed image, except for the border of one pixel."""
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32) / 13.0
    kernel = tf.tile(kernel[..., None, None], [1, 1, 3, 1])
    smooth = tf.nn.depthwise_conv2d(image[None], kernel, [1] * 4, "VALID")[0]
    inside = tf.pad(tf.ones_like(smooth), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.pad(smooth, [[1, 1], [1, 1], [0, 0]])
    return _blend(tf.where(inside > 0, smooth, image), image, level)


def posterize(image, level):
    """Drops up to 4 low bits of every value."""
    bits = tf.floor(tf.abs(level) * POSTERIZED_BITS)
    step = tf.pow(2.0, bits)
    return tf.floor(image / step) * step


def solarize(image, level):
    """Inverts values above a threshold, from 256 down to 0 at level 1."""
    threshold = 256.0 * (1.0 - tf.abs(level))
    return tf.where(image < threshold, image, 255.0 - image)


def _gray(image):
    gray = tf.reduce_sum(image * tf.constant(LUMA), axis=-1, keepdims=True)
    return tf.repeat(gray, 3, axis=-1)


def _blend(degenerate, image, level):
    """Moves from a degenerate image to the image, or further, by a level."""
    factor = 1.0 + ENHANCEMENT * level
    blended = degenerate + factor * (image - degenerate)
    return tf.clip_by_value(blended, 0.0, 255.0)


# An operation that is added here is drawn like the others.
OPERATIONS = {
    operation.__name__: operation
    for operation in (
        identity,
        auto_contrast,
        equalize,
        rotate,
        solarize,
        color,
        posterize,
        contrast,
        brightness,
        sharpness,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
    )
}
