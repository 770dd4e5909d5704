"""Further augmentation of training images, by the layers of Keras.

Each layer draws from a seed of the example, so that an example comes out the
same whenever it is asked for.
"""

import tensorflow as tf
from keras import layers

from recipes.classification import rand_augment
from recipes.data import stateless

# The changes of SimCLR (Chen et al. 2020, appendix A) at strength 1. Keras adds
# brightness where SimCLR multiplies by 1 +- 0.8, half of that to a mean gray.
BRIGHTNESS = 0.4
CONTRAST = 0.8
SATURATION = 0.8
HUE = 0.2
# The smallest share of an image that is erased (Zhong et al. 2017).
SMALLEST_ERASED = 0.02


def make(config, num_channels):
    """`f(image, seed)` on images in [0, 255], or None where no flag asks.

    Gray images are jittered in brightness and contrast alone; RandAugment sees
    them in three equal colors.
    """
    steps = []
    if config.rand_augment:
        seeds = stateless.Seeds()
        layer = rand_augment.RandAugment(config.rand_augment, seeds)
        steps.append((seeds, _in_color(layer, num_channels)))
    if config.color_jitter:
        seeds = stateless.Seeds()
        jitter = _color_jitter(config.color_jitter, num_channels, seeds)
        steps.append((seeds, jitter))
    if config.random_erasing:
        seeds = stateless.Seeds()
        steps.append((seeds, _erasing(config.random_erasing, seeds)))
    if not steps:
        return None

    def augment(image, seed):
        shape = image.shape
        for number, (seeds, layer) in enumerate(steps):
            seeds.start(tf.random.fold_in(seed, number))
            image = tf.ensure_shape(layer(image), shape)
        return image

    return augment


def _in_color(layer, num_channels):
    if num_channels == 3:
        return layer
    return lambda image: layer(tf.repeat(image, 3, axis=-1))[..., :1]


def _color_jitter(strength, num_channels, seeds):
    """The parts of `keras.layers.RandomColorJitter`, which takes no dtype.

    On images in [0, 1]: Keras clips the saturation to the range of the values.
    """
    options = {"value_range": (0, 1), "dtype": "float32"}
    parts = [
        layers.RandomBrightness(BRIGHTNESS * strength, **options),
        layers.RandomContrast(CONTRAST * strength, **options),
    ]
    if num_channels == 3:
        # Keras multiplies by f / (1 - f), and turns by half of the hue factor.
        least, most = 1 - SATURATION * strength, 1 + SATURATION * strength
        factor = (least / (1 + least), most / (1 + most))
        parts += [
            layers.RandomSaturation(factor, **options),
            layers.RandomHue(2 * HUE * strength, **options),
        ]
    parts = [stateless.bind(part, seeds) for part in parts]

    def jitter(image):
        image = image / 255.0
        for part in parts:
            image = part(image)
        return image * 255.0

    return jitter


def _erasing(share, seeds):
    """Erases a box of noise from about half of the images, as Keras does."""
    scale = (min(SMALLEST_ERASED, share), share)
    layer = layers.RandomErasing(scale=scale, dtype="float32")
    return stateless.bind(layer, seeds)
