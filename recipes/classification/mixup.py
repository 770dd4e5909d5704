"""Mixup and CutMix: batches whose images and labels are mixed in pairs.

Mixup: Zhang et al. 2018, arXiv:1710.09412. CutMix: Yun et al. 2019,
arXiv:1905.04899. Each example has its own partner and mixing ratio.

Partners come from the same input pipeline's shard of the global batch, before
it is split between replicas. So the result depends on the number of workers,
but not on the number of replicas per worker. Images of weight 0 are not mixed.
"""

import dataclasses

from etils import epy

from recipes.config.setting import setting

# Reading the settings does not load TensorFlow.
with epy.lazy_imports():
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class MixupSettings:
    """Strength of mixup and CutMix; 0 turns them off."""

    mixup: float = setting(
        0,
        "Alpha of the beta distribution of mixup. Its paper uses 0.2 for "
        "ImageNet.",
        low=0,
    )
    cutmix: float = setting(
        0,
        "Alpha of the beta distribution of CutMix, 1 in its paper. If --mixup "
        "is set too, each batch randomly uses one of the two.",
        low=0,
    )


def make_mixup(config, num_classes, pipeline):
    """Returns `f(step, batch)` that mixes a batch, or None if both are off.

    Labels become float32 `(n, num_classes)`. All draws follow from the config's
    seed, the step and the index of the input pipeline.
    """
    mixers = [
        (mix, getattr(config, name))
        for name, mix in MIXERS.items()
        if getattr(config, name)
    ]
    if not mixers:
        return None

    def mix_batch(step, batch):
        images, labels, weights = batch
        labels = tf.one_hot(labels, num_classes)
        seed = tf.stack([tf.constant(config.seed, tf.int64), step])
        seeds = tf.random.split(tf.random.fold_in(seed, pipeline), 4)
        partners = _draw_partners(weights, seeds[0])
        which = tf.random.stateless_uniform(
            (), seeds[1], maxval=len(mixers), dtype=tf.int32
        )

        def apply(mix, alpha):
            ratios = draw_beta(alpha, (tf.size(weights),), seeds[2])
            others = tf.gather(images, partners)
            mixed, ratios = mix(images, others, ratios, seeds[3])
            ratios = ratios[:, None]
            targets = ratios * labels + (1 - ratios) * tf.gather(
                labels, partners
            )
            return tf.ensure_shape(mixed, images.shape), targets

        images, labels = tf.switch_case(
            which, [lambda pair=pair: apply(*pair) for pair in mixers]
        )
        return images, labels, weights

    return mix_batch


def mix_images(images, others, ratios, seed):
    """Blends images with others by mixup.

    Args:
        images: `(n, height, width, channels)`.
        others: Their partners, of the same shape.
        ratios: `(n,)`, the weight of each image from 0 to 1. The rest is the
            weight of its partner.
        seed: Ignored: mixup draws nothing else.

    Returns:
        The mixed images, and the ratios.
    """
    del seed
    weights = ratios[:, None, None, None]
    return weights * images + (1 - weights) * others, ratios


def paste_boxes(images, others, ratios, seed):
    """Pastes a box of each partner into the images by CutMix.

    The box has the area `1 - ratio` before it is cut off at the image's border
    and rounded to whole pixels. Args as in `mix_images`.

    Returns:
        The mixed images, and their exact ratios.
    """
    height, width = images.shape[1:3]
    sides = tf.sqrt(1 - ratios)
    seeds = tf.random.split(seed, 2)
    rows = _draw_interval(height, sides, seeds[0])
    columns = _draw_interval(width, sides, seeds[1])
    is_pasted = rows[:, :, None] & columns[:, None, :]
    pasted_area = tf.reduce_mean(tf.cast(is_pasted, tf.float32), axis=(1, 2))
    mixed = tf.where(is_pasted[..., None], others, images)
    return mixed, 1 - pasted_area


MIXERS = {"mixup": mix_images, "cutmix": paste_boxes}


def draw_beta(alpha, shape, seed):
    """Draws from the beta distribution with both parameters equal to alpha.

    Computes `x / (x + y)` of two gamma draws from their logarithms, because the
    draws themselves underflow for small alphas.
    """

    def log_gamma(seed):
        seeds = tf.random.split(seed, 2)
        draws = tf.random.stateless_gamma(shape, seeds[0], alpha + 1.0)
        uniform = 1 - tf.random.stateless_uniform(shape, seeds[1])
        return tf.math.log(draws) + tf.math.log(uniform) / alpha

    seeds = tf.random.split(seed, 2)
    return tf.sigmoid(log_gamma(seeds[0]) - log_gamma(seeds[1]))


def _draw_partners(weights, seed):
    """Draws a permutation; examples without a valid partner keep themselves."""
    numbers = tf.range(tf.size(weights))
    partners = tf.random.experimental.stateless_shuffle(numbers, seed)
    is_valid = (weights > 0) & (tf.gather(weights, partners) > 0)
    return tf.where(is_valid, partners, numbers)


def _draw_interval(size, sides, seed):
    """Draws intervals of pixels: bool `(n, size)`.

    Args:
        size: Number of pixels of the axis.
        sides: Lengths of the intervals `(n,)` as fractions of the size.
        seed: int64 `(2,)`.
    """
    centers = tf.random.stateless_uniform(tf.shape(sides), seed, 0, size)
    half = sides * size / 2
    begin, end = tf.round(centers - half), tf.round(centers + half)
    pixels = tf.range(size, dtype=tf.float32)
    return (pixels >= begin[:, None]) & (pixels < end[:, None])
