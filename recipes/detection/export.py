"""The export of a detector: from images to what was found on them."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from recipes.detection import decoder
from recipes.errors import RecipeError
from recipes.export import formats
from recipes.export import writer
from recipes.models import precision

# What rounding may change: a score, and an edge as a share of the image.
TOLERANCE = 1e-3
BATCH_SIZES = (1, 3)
# Evaluation images are looked at until something is found, at most so many.
MAX_IMAGES = 24


def write(config, data, model):
    """Writes a detector in float32, boxes decoded and suppressed in the file.

    Args:
        config: A `DetectionConfig`.
        data: Its `Data`.
        model: Functional model, see `retinanet.make`.

    Returns:
        The line that says what was written.

    Raises:
        RecipeError: as `export.write`, and for other detections than those of
            the Keras model on evaluation images and on noise.
    """
    # What the format needs is asked for before the network is made again.
    formats.get_format(config.export_format)
    rebuilt = precision.rebuild_in_float32(model)
    network = _with_detections(config, rebuilt)
    facts = {
        "outputs": {
            name: [None, *tensor.shape[1:]]
            for name, tensor in network.output.items()
        },
        "box_format": "ymin, xmin, ymax, xmax in pixels of the input",
        "class_names": list(data.source.class_names),
        "score_threshold": config.score_threshold,
        "nms_threshold": config.nms_threshold,
        "trained_in": precision.dtype_policies(model),
    }
    facts = writer.write_export(
        config,
        network,
        facts,
        lambda run: _check(run, network, rebuilt, data, config.score_threshold),
    )
    return (
        f"export: {facts['path']}, {facts['bytes'] / 1e6:,.1f} MB; "
        f"{facts['compared_detections']} detections on "
        f"{facts['compared_images']} images are those of the model, largest "
        f"difference {facts['largest_difference']:.1e}"
    )


def _with_detections(config, model):
    """The model with the names of the formats around it."""
    shape = model.inputs[0].shape[1:]
    name = formats.INPUT
    images = keras.Input(shape, name=name, dtype="float32")
    found = decoder.of(config)(model(images))
    return keras.Model({name: images}, found, name=model.name)


def _check(run, network, model, data, score_threshold):
    """The largest difference between the file and the network.

    Raises:
        RecipeError: for more than rounding, or a model whose outputs are not
            finite, of which nothing is detected.
    """
    num_images = num_detections = 0
    differences = []
    # A GPU may round products to fewer digits than float32 has.
    with tf.device("CPU:0"):
        for images in _batches(network, data):
            for name, output in model(images, training=False).items():
                writer.require_finite(f"{name} of {model.name}", output.numpy())
            expected = network({formats.INPUT: images}, training=False)
            expected = {k: v.numpy() for k, v in expected.items()}
            differences.append(
                difference(run(images), expected, images.shape, score_threshold)
            )
            num_images += len(images)
            num_detections += int(expected["num_detections"].sum())
            if num_detections and num_images >= sum(BATCH_SIZES):
                break
    if writer.largest(differences) > TOLERANCE:
        raise RecipeError(
            "the file gives other detections than the network: difference "
            f"{writer.largest(differences):.1e}, and {TOLERANCE:.0e} is allowed"
            ". Nothing was kept."
        )
    return {
        "largest_difference": writer.largest(differences),
        "allowed_difference": TOLERANCE,
        "compared_images": num_images,
        "compared_detections": num_detections,
    }


def _batches(network, data):
    """Noise, then evaluation images, in batches of several sizes."""
    shape = network.inputs[0].shape[1:]
    noise = np.random.default_rng(0).uniform(-1, 1, (BATCH_SIZES[0], *shape))
    yield noise.astype("float32")
    images = (
        image for batch, _, _ in data.evaluation() for image in batch.numpy()
    )
    images = itertools.islice(images, min(MAX_IMAGES, data.num_eval))
    for size in itertools.cycle(reversed(BATCH_SIZES)):
        batch = list(itertools.islice(images, size))
        if not batch:
            return
        yield np.stack(batch)


def difference(actual, expected, shape, score_threshold):
    """The largest difference of two results, infinite where one misses a box.

    Of scores as they are, of edges as a share of the image. What rounding may
    move across the threshold, or beyond the last place, may miss.

    Args:
        actual, expected: Dicts as `detections.Detections` gives, in NumPy.
        shape: `(batch, height, width, channels)` of the images.
        score_threshold: Lower scores are no detection.
    """
    largest = 0.0
    for row in range(shape[0]):
        ours, theirs = (
            _Found(each, row, max(shape[1:3]), score_threshold)
            for each in (actual, expected)
        )
        for these, others in ((ours, theirs), (theirs, ours)):
            for box, score, label in these.rows():
                found = others.closest(box, score, label)
                # A NaN must not pass for a score that rounding may move.
                if found <= TOLERANCE or not score <= others.least + TOLERANCE:
                    largest = max(largest, found)
    return largest


class _Found:
    """What was found on an image; `least` is the score that it took to be."""

    def __init__(self, found, row, size, score_threshold):
        count = int(found["num_detections"][row])
        self.boxes = found["boxes"][row][:count] / size
        self.scores = found["scores"][row][:count]
        self.labels = found["classes"][row][:count]
        is_full = count == len(found["scores"][row])
        self.least = self.scores.min() if is_full else score_threshold

    def rows(self):
        return zip(self.boxes, self.scores, self.labels, strict=True)

    def closest(self, box, score, label):
        """The difference to the detection here that differs least."""
        edges = np.abs(self.boxes - box).max(axis=-1, initial=0.0)
        each = np.maximum(edges, np.abs(self.scores - score))
        each = np.where(np.isnan(each), np.inf, each)
        return float(each[self.labels == label].min(initial=np.inf))
