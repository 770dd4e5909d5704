"""Reads examples of detection datasets: image, targets and weight."""

import tensorflow as tf

from recipes.data import image_files
from recipes.data.input_pipeline import ExampleReader
from recipes.detection import label_encoder
from recipes.detection import preprocessing


def training_examples(config, source, bad_images):
    """Returns the `ExampleReader` of training examples.

    Targets are a dict of `classes`, int32 `(A,)`, and `deltas`, float32
    `(A, 4)`, of the anchors, see `label_encoder.assign_targets`.
    """
    anchors = tf.constant(config.anchors.boxes)
    preprocess = preprocessing.training_preprocessing(config)

    def read(split, index, seed):
        example, pixels, weight = _read(split, index, bad_images)
        image, boxes, keep = preprocess(pixels, example["boxes"], seed)
        classes, deltas = label_encoder.assign_targets(
            *[
                tf.boolean_mask(values, keep)
                for values in (boxes, example["labels"], example["is_crowd"])
            ],
            anchors,
        )
        return image * weight, {"classes": classes, "deltas": deltas}, weight

    def padding():
        classes = tf.fill(anchors.shape[:1], label_encoder.IGNORED)
        targets = {"classes": classes, "deltas": tf.zeros(anchors.shape)}
        return tf.zeros(_shape(config, source)), targets, 0.0

    return ExampleReader(read, padding)


def evaluation_examples(config, source, bad_images):
    """Returns the `ExampleReader` of evaluation examples.

    The target is the index of the example, int64, which identifies its
    annotation.
    """
    preprocess = preprocessing.evaluation_preprocessing(config)

    def read(split, index, seed):
        example, pixels, weight = _read(split, index, bad_images)
        image, _, _ = preprocess(pixels, example["boxes"], seed)
        return image * weight, index, weight

    def padding():
        shape = _shape(config, source)
        return tf.zeros(shape), tf.constant(-1, tf.int64), 0.0

    return ExampleReader(read, padding)


def image_examples(config, source, bad_images):
    """Returns the `ExampleReader` of images without boxes.

    Images are rotated by their EXIF orientation. The target is int64 `(3,)`:
    index of the example, height and width of the image.
    """
    preprocess = preprocessing.evaluation_preprocessing(config)

    def decode(data):
        pixels = image_files.decode(data, 3)
        return image_files.rotate_upright(
            pixels, image_files.read_orientation(data)
        )

    def read(split, index, seed):
        data = split.read(index)["image"]
        pixels, weight = bad_images.decode_safely(decode, data, index, split)
        image, _, _ = preprocess(pixels, tf.zeros((0, 4)), seed)
        size = tf.shape(pixels, tf.int64)[:2]
        return image * weight, tf.concat([[index], size], axis=0), weight

    def padding():
        shape = _shape(config, source)
        return tf.zeros(shape), tf.constant([-1, 1, 1], tf.int64), 0.0

    return ExampleReader(read, padding)


def _read(split, index, bad_images):
    """Returns an example with boxes in pixels, its image and its weight."""
    example = split.read(index)

    pixels, weight = bad_images.decode_safely(
        lambda data: image_files.decode(data, 3),
        example["image"],
        index,
        split,
        example.get("size"),
    )
    sides = tf.tile(tf.cast(tf.shape(pixels)[:2], tf.float32), [2])
    # Skipped images have no boxes.
    is_used = tf.fill(tf.shape(example["labels"]), weight > 0)
    objects = {
        "boxes": example["boxes"] * sides,
        "labels": example["labels"],
        "is_crowd": example["is_crowd"],
    }
    objects = {k: tf.boolean_mask(v, is_used) for k, v in objects.items()}
    return objects, pixels, weight


def _shape(config, source):
    return config.image_size, config.image_size, source.num_channels
