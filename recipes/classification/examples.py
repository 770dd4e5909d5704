"""Reads labeled images as examples `(image, label, weight)`."""

import tensorflow as tf

from recipes.classification import preprocessing
from recipes.data import image_files
from recipes.data.input_pipeline import ExampleReader


def training_examples(config, source, bad_images):
    """Returns the `ExampleReader` of training examples."""
    return _make_reader(
        preprocessing.training_preprocessing(config, source), bad_images
    )


def evaluation_examples(config, source, bad_images):
    """Returns the `ExampleReader` of evaluation examples."""
    return _make_reader(
        preprocessing.evaluation_preprocessing(config, source), bad_images
    )


def _make_reader(preprocess, bad_images):
    return ExampleReader(
        read=lambda split, index, seed: read_example(
            split, index, preprocess, seed, bad_images
        ),
        padding=lambda: (
            tf.zeros(preprocess.shape),
            tf.constant(0, tf.int64),
            0.0,
        ),
    )


def read_example(split, index, preprocess, seed, bad_images):
    """Reads the image, label and weight of an example in a graph.

    Args:
        split: A `datasets.Split`.
        index: Scalar int64 tensor.
        preprocess: A `Preprocessing`.
        seed: int64 tensor `(2,)` that determines all random choices.
        bad_images: `BadImages` of the run.
    """
    image, label = split.read(index)
    if image.dtype != tf.string:
        return preprocess(image, seed), label, 1.0

    def decode_safely(crop):
        return bad_images.decode_safely(
            lambda data: crop(data, seed), image, index, split
        )

    def crop_file(data, seed):
        orientation = image_files.read_orientation(data)

        def crop_upright():
            pixels = image_files.decode(data, preprocess.shape[-1])
            pixels = image_files.rotate_upright(pixels, orientation)
            return preprocess.crop(pixels, seed)

        # Rotated JPEGs could be decoded in part as well, but they are rare.
        return tf.cond(
            tf.image.is_jpeg(data) & (orientation == 1),
            lambda: preprocess.crop_jpeg(data, seed),
            crop_upright,
        )

    # Most JPEG files have no metadata, and so no EXIF to search for.
    is_file = split.path is not None
    is_simple = image_files.is_plain_jpeg if is_file else tf.image.is_jpeg
    pixels, weight = tf.cond(
        is_simple(image),
        lambda: decode_safely(preprocess.crop_jpeg),
        lambda: decode_safely(crop_file if is_file else preprocess.crop),
    )
    image = tf.cond(
        weight > 0,
        lambda: preprocess.finish(pixels, seed),
        lambda: tf.zeros(preprocess.shape),
    )
    return image, label, weight
