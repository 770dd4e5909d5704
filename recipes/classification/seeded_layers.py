"""Color jitter and random erasing by Keras layers, as functions of a seed."""

import keras
import tensorflow as tf
from keras import layers

# SimCLR's color jitter (Chen et al. 2020, appendix A) at strength 1. Keras adds
# to the brightness where SimCLR multiplies by 1 +- 0.8, so this is half of that
# at a mean gray.
BRIGHTNESS = 0.4
CONTRAST = 0.8
SATURATION = 0.8
HUE = 0.2
# Smallest fraction of an image that is erased (Zhong et al. 2017).
MIN_ERASED = 0.02


class SeededGenerator(keras.random.SeedGenerator):
    """Seed generator whose draws all follow from one seed.

    Keras' own generator counts its draws in a variable, in the order in which
    threads reach it. This one counts them while a graph is traced, so that the
    n-th draw of the graph is a function of the seed passed to the graph.
    """

    def __init__(self):
        super().__init__(seed=0)
        self._seed = None
        self._num_draws = 0

    def restart(self, seed):
        """Starts a sequence of draws that follow from an int64 `(2,)` seed."""
        self._seed = seed
        self._num_draws = 0

    def next(self, ordered=True):
        self._num_draws += 1
        return tf.random.fold_in(self._seed, self._num_draws)


def color_jitter(strength, num_channels):
    """Returns `f(image, seed)`, which jitters the colors of a [0, 255] image.

    Changes brightness and contrast, and the saturation and hue of RGB images.
    Uses the layers inside `keras.layers.RandomColorJitter`, which has no
    `dtype` argument, on images in [0, 1], because Keras clips the saturation to
    the value range.
    """
    options = {"value_range": (0, 1), "dtype": "float32"}
    steps = [
        layers.RandomBrightness(BRIGHTNESS * strength, **options),
        layers.RandomContrast(CONTRAST * strength, **options),
    ]
    if num_channels == 3:
        # Keras multiplies the saturation by f / (1 - f), and rotates the hue by
        # half of its factor.
        low, high = 1 - SATURATION * strength, 1 + SATURATION * strength
        factor = (low / (1 + low), high / (1 + high))
        steps += [
            layers.RandomSaturation(factor, **options),
            layers.RandomHue(2 * HUE * strength, **options),
        ]
    apply = _seed_layers(steps)
    return lambda image, seed: apply(image / 255.0, seed) * 255.0


def random_erasing(max_area, num_channels):
    """Returns `f(image, seed)`, which erases a random box of half the images.

    Args:
        max_area: Largest erased fraction of the image.
        num_channels: Ignored: images may have any number of channels.
    """
    del num_channels
    scale = (min(MIN_ERASED, max_area), max_area)
    return _seed_layers([layers.RandomErasing(scale=scale, dtype="float32")])


def _seed_layers(steps):
    """Returns `f(image, seed)`, which applies layers that draw from a seed."""
    generator = SeededGenerator()
    for layer in steps:
        layer.generator = generator

    def apply(image, seed):
        generator.restart(seed)
        for layer in steps:
            image = layer(image)
        return image

    return apply
