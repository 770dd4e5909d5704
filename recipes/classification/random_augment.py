"""Random augmentations with a strength: their settings, and their order.

To add one, add a setting to `RandomAugmentSettings` and a factory of the same
name to `_factories`.
"""

import dataclasses

from etils import epy

from recipes.config.setting import setting

# Reading the settings does not load TensorFlow.
with epy.lazy_imports():
    import tensorflow as tf

    from recipes.classification import rand_augment
    from recipes.classification import seeded_layers


@dataclasses.dataclass(frozen=True)
class RandomAugmentSettings:
    """Strength of each random augmentation; 0 turns it off."""

    rand_augment: float = setting(
        0,
        "Strength of the two random operations of RandAugment. Its paper uses "
        "9 of 10.",
        low=0,
        high=10,
    )
    color_jitter: float = setting(
        0,
        "Strength of random changes of brightness, contrast, saturation and "
        "hue.",
        low=0,
        high=1,
    )
    random_erasing: float = setting(
        0,
        "Largest fraction of a training image that random erasing replaces "
        "with noise.",
        low=0,
        high=1,
    )


def _factories():
    """Maps each setting to `f(strength, num_channels)`, in order of use."""
    return {
        "rand_augment": rand_augment.rand_augment,
        "color_jitter": seeded_layers.color_jitter,
        "random_erasing": seeded_layers.random_erasing,
    }


def make_random_augment(config, num_channels):
    """Returns `f(image, seed)` for images in [0, 255], or None if all are off.

    Args:
        config: Config with the settings of `RandomAugmentSettings`.
        num_channels: 1 or 3.
    """
    steps = [
        make(getattr(config, name), num_channels)
        for name, make in _factories().items()
        if getattr(config, name)
    ]
    if not steps:
        return None

    def augment(image, seed):
        shape = image.shape
        for number, step in enumerate(steps):
            image = step(image, tf.random.fold_in(seed, number))
            image = tf.ensure_shape(image, shape)
        return image

    return augment
