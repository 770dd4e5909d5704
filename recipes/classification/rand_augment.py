"""RandAugment (Cubuk et al. 2020, arXiv:1909.13719) of Keras' layers."""

import functools

import keras
import tensorflow as tf
from keras import layers

# What the paper's operations do at strength 10.
SHEAR = 0.3
TRANSLATION = 0.45
ROTATION = 30 / 360
# Keras adds to the image what the paper multiplies it with: 1.9 times a mean
# of 0.45 is 0.4 more.
BRIGHTNESS = 0.4
ENHANCEMENT = 0.9
POSTERIZATION_BITS = 4


class RandAugment(keras.layers.RandAugment):
    """`num_ops` operations on an image in [0, 255], drawn for each image.

    Departs from the layer of Keras 3 in two ways. Keras hands one number to
    operations that take it differently: at 0.9 images turn by up to 324
    degrees, and a small number keeps one bit of a color and inverts the image.
    Here each operation has the range of the paper, times the strength. And
    Keras computes every operation and throws all but one away; here only the
    one that was drawn runs, inside a TensorFlow graph.

    Args:
        strength: The largest that is drawn, from 0 to 10.
        seeds: The `Seeds` that all draws follow from.
    """

    def __init__(self, strength, seeds, num_ops=2):
        super().__init__(num_ops=num_ops, dtype="float32")
        share = strength / 10
        options = {"dtype": "float32"}
        sharpness = 0.5 * ENHANCEMENT * share
        self.random_shear = layers.RandomShear(
            SHEAR * share, SHEAR * share, **options
        )
        self.random_translation = layers.RandomTranslation(
            TRANSLATION * share, TRANSLATION * share, **options
        )
        self.random_rotation = layers.RandomRotation(
            ROTATION * share, **options
        )
        self.random_brightness = layers.RandomBrightness(
            BRIGHTNESS * share, **options
        )
        self.random_color_degeneration = layers.RandomColorDegeneration(
            ENHANCEMENT * share, **options
        )
        self.random_contrast = layers.RandomContrast(
            ENHANCEMENT * share, **options
        )
        self.random_sharpness = layers.RandomSharpness(
            (0.5 - sharpness, 0.5 + sharpness), **options
        )
        self.random_posterization = layers.RandomPosterization(
            (8 - int(POSTERIZATION_BITS * share), 8), **options
        )
        self.solarization = layers.Solarization(**options)
        # Keras scales the upper threshold to 255 and leaves the lower alone.
        self.solarization.threshold_factor = (255 * (1 - share), 1.0)
        self.generator = seeds

    def get_random_transformation(self, data, training=True, seed=None):
        which = self.backend.random.randint(
            (self.num_ops,), 0, len(self._AUGMENT_LAYERS), seed=self.generator
        )
        seeds = [self.generator.next() for _ in range(self.num_ops)]
        return tf.unstack(which), seeds

    def transform_images(self, images, transformation, training=True):
        # One graph of all operations, called `num_ops` times.
        operate = tf.function(self._operate, autograph=False)
        for which, seed in zip(*transformation, strict=True):
            images = operate(images, which, seed)
        return images

    def _operate(self, images, which, seed):
        """The operation of that number, whose draws follow from the seed."""
        self.generator.start(seed)

        def branch(name):
            layer = getattr(self, name)
            drawn = layer.get_random_transformation(images, seed=self.generator)
            output = layer.transform_images(images, drawn)
            return tf.ensure_shape(output, images.shape)

        return tf.switch_case(
            which,
            [functools.partial(branch, name) for name in self._AUGMENT_LAYERS],
        )
