"""The example that stands in a row of a step: image, label and weight."""

import tensorflow as tf

from recipes import augment
from recipes import bad_images
from recipes import sources


def training(source, config, steps_per_epoch):
    """`f(step, row)` gives the training example of that row, in a graph."""
    split = source.train
    preparation = augment.training(config, source)

    def example(step, row):
        epoch = step // steps_per_epoch
        place = step % steps_per_epoch * config.global_batch_size + row
        seed = tf.stack([tf.constant(config.seed, tf.int64), epoch])
        seed = tf.random.fold_in(seed, place)

        def fetch_shuffled():
            index = sources.shuffled(
                place, split.num_examples, config.seed, epoch
            )
            return fetch(split, index, preparation, seed, config.on_bad_image)

        return _or_padding(
            place < split.num_examples, fetch_shuffled, preparation
        )

    return example


def evaluation(source, config, batch_size):
    """`f(step, row)` gives the evaluation example of that row, in a graph."""
    split = source.evaluation
    preparation = augment.evaluation(config, source)
    seed = tf.zeros(2, tf.int64)

    def example(step, row):
        index = step * batch_size + row
        return _or_padding(
            index < split.num_examples,
            lambda: fetch(split, index, preparation, seed, config.on_bad_image),
            preparation,
        )

    return example


def fetch(split, index, preparation, seed, on_bad_image):
    """Image, label and weight of the example `index` of a split.

    Args:
        split: A `sources.Split`.
        index: int64 tensor.
        preparation: An `augment.Preparation`.
        seed: int64 tensor of two numbers, that all random choices follow from.
        on_bad_image: As the setting of that name.
    """
    image, label = split.read(index)
    if image.dtype != tf.string:
        return preparation(image, seed), label, 1.0

    def guarded(crop):
        return bad_images.guard(
            lambda encoded: crop(encoded, seed),
            image,
            index,
            split.name,
            on_bad_image,
        )

    pixels, weight = tf.cond(
        tf.image.is_jpeg(image),
        lambda: guarded(preparation.crop_jpeg),
        lambda: guarded(preparation.crop),
    )
    image = tf.cond(
        weight > 0,
        lambda: preparation.finish(pixels, seed),
        lambda: tf.zeros(preparation.shape),
    )
    return image, label, weight


def _or_padding(is_within, fetch, preparation):
    """An example, or zeros of weight 0 past the end of the set."""
    return tf.cond(
        is_within,
        fetch,
        lambda: (tf.zeros(preparation.shape), tf.constant(0, tf.int64), 0.0),
    )
