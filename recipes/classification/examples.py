"""Labelled images as examples: image, label and weight."""

import tensorflow as tf

from recipes.classification import preprocessing
from recipes.data import image_files
from recipes.data.input_pipeline import ExampleReader


def training_examples(config, source, bad_images):
    """The `ExampleReader` of training examples."""
    return _make_reader(
        preprocessing.training_preprocessing(config, source), bad_images
    )


def evaluation_examples(config, source, bad_images):
    """The `ExampleReader` of evaluation examples."""
    return _make_reader(
        preprocessing.evaluation_preprocessing(config, source), bad_images
    )


def _make_reader(preparation, bad_images):
    return ExampleReader(
        read=lambda split, index, seed: read_example(
            split, index, preparation, seed, bad_images
        ),
        padding=lambda: (
            tf.zeros(preparation.shape),
            tf.constant(0, tf.int64),
            0.0,
        ),
    )


def read_example(split, index, preparation, seed, bad_images):
    """Image, label and weight of the example `index` of a split.

    Args:
        split: A `sources.Split`.
        index: int64 tensor.
        preparation: An `augment.Preparation`.
        seed: int64 tensor of two numbers, that all random choices follow from.
        bad_images: The `BadImages` of the run.
    """
    image, label = split.read(index)
    if image.dtype != tf.string:
        return preparation(image, seed), label, 1.0

    def guarded(crop):
        return bad_images.decode_safely(
            lambda data: crop(data, seed), image, index, split
        )

    def crop_file(data, seed):
        turn = image_files.read_orientation(data)

        def upright():
            pixels = image_files.decode(data, preparation.shape[-1])
            return preparation.crop(
                image_files.rotate_upright(pixels, turn), seed
            )

        # Part of what is turned could be decoded too, but few images are.
        return tf.cond(
            tf.image.is_jpeg(data) & (turn == 1),
            lambda: preparation.crop_jpeg(data, seed),
            upright,
        )

    # Most JPEG files have no EXIF to look for.
    is_file = split.path is not None
    is_quick = image_files.is_plain_jpeg if is_file else tf.image.is_jpeg
    pixels, weight = tf.cond(
        is_quick(image),
        lambda: guarded(preparation.crop_jpeg),
        lambda: guarded(crop_file if is_file else preparation.crop),
    )
    image = tf.cond(
        weight > 0,
        lambda: preparation.finish(pixels, seed),
        lambda: tf.zeros(preparation.shape),
    )
    return image, label, weight
