"""Predictions of a detector for images without annotations."""

import os

import numpy as np
import tensorflow as tf

from recipes.data import image_files
from recipes.data import image_folder
from recipes.detection import boxed
from recipes.detection import decoder
from recipes.detection import preprocessing
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split

COLUMNS = ("image", "label", "score", "xmin", "ymin", "xmax", "ymax")
SCORE_DIGITS, BOX_DIGITS = 6, 2


def source(facts, paths):
    """A source of images without boxes."""
    tensor = tf.constant([os.fsencode(path) for path in paths])
    split = Split(
        num_examples=len(paths),
        read=lambda i: {"image": image_files.read_bytes(tensor[i])},
        name=lambda i: image_folder.printable(paths[i]),
        annotations=list,
        path=lambda i: paths[i],
    )
    return Source(
        class_names=tuple(facts["class_names"]),
        category_ids=tuple(range(len(facts["class_names"]))),
        train=split,
        evaluation=split,
    )


def examples(config, source, bad_images):
    """Returns the `ExampleReader` of images turned upright by EXIF."""
    return boxed.prediction(config, source, bad_images)


def outputs(config, trainer, batch):
    """Number, size, weight and detections of each image."""
    images, targets, weights = batch
    with trainer.inference_weights():
        found = decoder.of(config)(trainer.model(images, training=False))
    return {
        **found,
        "indices": targets[:, 0],
        "sizes": targets[:, 1:],
        "weights": weights,
    }


def entry(config, class_names, row):
    """The size of an image and the objects on it, the surest first."""
    height, width = (int(side) for side in row["sizes"])
    scaled = preprocessing.scaled_size(height, width, config.image_size)
    count = int(row["num_detections"])
    sides = np.array([height, width])
    boxes = row["boxes"][:count] * np.tile(sides / scaled, 2)
    boxes = np.clip(boxes, 0, np.tile(sides, 2))
    return {
        "width": width,
        "height": height,
        "objects": [
            {
                "label": class_names[int(label)],
                "score": round(float(score), SCORE_DIGITS),
                "box": [round(float(box[i]), BOX_DIGITS) for i in (1, 0, 3, 2)],
            }
            for box, score, label in zip(
                boxes,
                row["scores"][:count],
                row["classes"][:count],
                strict=True,
            )
        ],
    }


def table(entry):
    """The rows of an image, one for each object."""
    return [
        [entry["image"], each["label"], each["score"], *each["box"]]
        for each in entry["objects"]
    ]
