"""Exports a detector with its decoder, from images to detections."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from recipes.detection import decoder
from recipes.errors import RecipeError
from recipes.export import formats
from recipes.export import signature
from recipes.export import writer
from recipes.models import precision

# Allowed rounding errors of scores, and of edges relative to the image size.
TOLERANCE = 1e-3
BATCH_SIZES = (1, 3)
# Maximum number of evaluation images on which detections are searched.
MAX_IMAGES = 24


def export_detector(config, data, model):
    """Exports a detector in float32 with box decoding and NMS.

    Args:
        config: A `DetectionConfig`.
        data: The `Data` of the run.
        model: Functional model, see `retinanet.make`.

    Returns:
        A message that describes the exported file.

    Raises:
        RecipeError: if the export fails, or the detections of the file and the
            Keras model differ on evaluation images or noise.
    """
    # Checks the dependencies of the format before the model is rebuilt.
    formats.get_format(config.export_format)
    rebuilt = precision.rebuild_in_float32(model)
    network = _add_decoder(config, rebuilt)
    metadata = {
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
    metadata = writer.write_export(
        config,
        network,
        metadata,
        lambda run: _check_export(
            run, network, rebuilt, data, config.score_threshold
        ),
    )
    return (
        f"export: {metadata['path']}, {metadata['bytes'] / 1e6:,.1f} MB; "
        f"{metadata['compared_detections']} detections on "
        f"{metadata['compared_images']} images match the model; largest "
        f"difference {metadata['largest_difference']:.1e}"
    )


def _add_decoder(config, model):
    """Adds the decoder and names the input as the formats expect."""
    shape = model.inputs[0].shape[1:]
    name = signature.INPUT
    images = keras.Input(shape, name=name, dtype="float32")
    found = decoder.make_decoder(config)(model(images))
    return keras.Model({name: images}, found, name=model.name)


def _check_export(run, network, model, data, score_threshold):
    """Compares the file with the network.

    Raises:
        RecipeError: for a difference above `TOLERANCE`, or if an output of the
            model is not finite, which would give no detections.
    """
    num_images = num_detections = 0
    differences = []
    # A GPU may compute products with less than float32 precision.
    with tf.device("CPU:0"):
        for images in _make_batches(network, data):
            for name, output in model(images, training=False).items():
                writer.require_finite(f"{name} of {model.name}", output.numpy())
            expected = network({signature.INPUT: images}, training=False)
            expected = {k: v.numpy() for k, v in expected.items()}
            differences.append(
                largest_difference(
                    run(images), expected, images.shape, score_threshold
                )
            )
            num_images += len(images)
            num_detections += int(expected["num_detections"].sum())
            if num_detections and num_images >= sum(BATCH_SIZES):
                break
    if writer.largest(differences) > TOLERANCE:
        raise RecipeError(
            "the detections of the file and the model differ by "
            f"{writer.largest(differences):.1e}; at most {TOLERANCE:.0e} is "
            "allowed. The exported files were removed."
        )
    return {
        "largest_difference": writer.largest(differences),
        "allowed_difference": TOLERANCE,
        "compared_images": num_images,
        "compared_detections": num_detections,
    }


def _make_batches(network, data):
    """Yields noise and then evaluation images in batches of two sizes."""
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


def largest_difference(actual, expected, shape, score_threshold):
    """Returns the largest difference between two results.

    It is the maximum over scores, and over edges relative to the image size,
    and infinite if a detection is missing in one result. Detections that
    rounding may move below the score threshold, or out of the
    `max_detections` best ones, may be missing.

    Args:
        actual, expected: Outputs of the `DetectionDecoder` as NumPy arrays.
        shape: `(batch, height, width, channels)` of the images.
        score_threshold: Score threshold of the decoder.
    """
    largest = 0.0
    for i in range(shape[0]):
        first, second = (
            _ImageDetections(each, i, max(shape[1:3]), score_threshold)
            for each in (actual, expected)
        )
        for detections, others in ((first, second), (second, first)):
            for box, score, label in detections.items():
                difference = others.closest(box, score, label)
                # A NaN must not count as a score near the threshold.
                if (
                    difference <= TOLERANCE
                    or not score <= others.min_score + TOLERANCE
                ):
                    largest = max(largest, difference)
    return largest


class _ImageDetections:
    """Detections on one image; `min_score` is the score of the weakest one."""

    def __init__(self, outputs, i, size, score_threshold):
        count = int(outputs["num_detections"][i])
        self.boxes = outputs["boxes"][i][:count] / size
        self.scores = outputs["scores"][i][:count]
        self.labels = outputs["classes"][i][:count]
        is_full = count == len(outputs["scores"][i])
        self.min_score = self.scores.min() if is_full else score_threshold

    def items(self):
        return zip(self.boxes, self.scores, self.labels, strict=True)

    def closest(self, box, score, label):
        """Returns the difference from the most similar detection."""
        edges = np.abs(self.boxes - box).max(axis=-1, initial=0.0)
        each = np.maximum(edges, np.abs(self.scores - score))
        each = np.where(np.isnan(each), np.inf, each)
        return float(each[self.labels == label].min(initial=np.inf))
