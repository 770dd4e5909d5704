"""Images with boxes as examples: image, targets and weight."""

import tensorflow as tf

from recipes.data import image_files
from recipes.data.input_pipeline import ExampleReader
from recipes.detection import label_encoder
from recipes.detection import preprocessing


def training(config, source, bad_images):
    """The `ExampleReader` of training examples.

    Targets are a dict of what every anchor has to learn: `classes` int32
    `(A,)` and `deltas` float32 `(A, 4)`, see `targets.assign`.
    """
    anchors = tf.constant(config.anchors.boxes)
    prepare = preprocessing.training(config)

    def read(split, index, seed):
        example, pixels, weight = _read(split, index, bad_images)
        image, boxes, keep = prepare(pixels, example["boxes"], seed)
        classes, deltas = label_encoder.assign(
            *[
                tf.boolean_mask(values, keep)
                for values in (boxes, example["labels"], example["is_crowd"])
            ],
            anchors,
        )
        return image * weight, {"classes": classes, "deltas": deltas}, weight

    def padding():
        classes = tf.fill(anchors.shape[:1], label_encoder.IGNORED)
        wanted = {"classes": classes, "deltas": tf.zeros(anchors.shape)}
        return tf.zeros(_shape(config, source)), wanted, 0.0

    return ExampleReader(read, padding)


def evaluation(config, source, bad_images):
    """The `ExampleReader` of evaluation examples.

    The target is the number of the example, int64, by which its annotation is
    found.
    """
    prepare = preprocessing.evaluation(config)

    def read(split, index, seed):
        example, pixels, weight = _read(split, index, bad_images)
        image, _, _ = prepare(pixels, example["boxes"], seed)
        return image * weight, index, weight

    def padding():
        shape = _shape(config, source)
        return tf.zeros(shape), tf.constant(-1, tf.int64), 0.0

    return ExampleReader(read, padding)


def prediction(config, source, bad_images):
    """The `ExampleReader` of images without boxes, turned as EXIF says.

    The target is int64 `(3,)`: the number of the example, and the height and
    width of its image.
    """
    prepare = preprocessing.evaluation(config)

    def decode(data):
        pixels = image_files.decode(data, 3)
        return image_files.rotate_upright(
            pixels, image_files.read_orientation(data)
        )

    def read(split, index, seed):
        data = split.read(index)["image"]
        pixels, weight = bad_images.guard(decode, data, index, split)
        image, _, _ = prepare(pixels, tf.zeros((0, 4)), seed)
        size = tf.shape(pixels, tf.int64)[:2]
        return image * weight, tf.concat([[index], size], axis=0), weight

    def padding():
        shape = _shape(config, source)
        return tf.zeros(shape), tf.constant([-1, 1, 1], tf.int64), 0.0

    return ExampleReader(read, padding)


def _read(split, index, bad_images):
    """An example with boxes in pixels, its image, and its weight."""
    example = split.read(index)

    pixels, weight = bad_images.guard(
        lambda data: image_files.decode(data, 3),
        example["image"],
        index,
        split,
        example.get("size"),
    )
    sides = tf.tile(tf.cast(tf.shape(pixels)[:2], tf.float32), [2])
    # What cannot be decoded has no boxes either.
    seen = tf.fill(tf.shape(example["labels"]), weight > 0)
    columns = {
        "boxes": example["boxes"] * sides,
        "labels": example["labels"],
        "is_crowd": example["is_crowd"],
    }
    columns = {k: tf.boolean_mask(v, seen) for k, v in columns.items()}
    return columns, pixels, weight


def _shape(config, source):
    return config.image_size, config.image_size, source.num_channels
