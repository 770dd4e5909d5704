"""Predicts objects on images without annotations."""

import os

import numpy as np
import tensorflow as tf

from keras_norm.errors import printable
from recipes.data import image_files
from recipes.detection import decoder
from recipes.detection import preprocessing
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split

COLUMNS = ("image", "label", "score", "xmin", "ymin", "xmax", "ymax")
SCORE_DIGITS, BOX_DIGITS = 6, 2


def open_images(metadata, paths):
    """Returns a `Source` of image files without boxes."""
    tensor = tf.constant([os.fsencode(path) for path in paths])
    split = Split(
        num_examples=len(paths),
        read=lambda i: {"image": image_files.read_bytes(tensor[i])},
        name=lambda i: printable(paths[i]),
        annotations=list,
        path=lambda i: paths[i],
    )
    return Source(
        class_names=tuple(metadata["class_names"]),
        category_ids=tuple(range(len(metadata["class_names"]))),
        train=split,
        evaluation=split,
    )


def predict_batch(config, trainer, batch):
    """Returns the index, size, weight and detections of each image."""
    images, targets, weights = batch
    with trainer.inference_weights():
        found = decoder.make_decoder(config)(
            trainer.model(images, training=False)
        )
    return {
        **found,
        "indices": targets[:, 0],
        "sizes": targets[:, 1:],
        "weights": weights,
    }


def prediction_entry(config, class_names, outputs):
    """Returns the size and the objects of an image, the best score first."""
    height, width = (int(side) for side in outputs["sizes"])
    scaled = preprocessing.scaled_size(height, width, config.image_size)
    count = int(outputs["num_detections"])
    sides = np.array([height, width])
    boxes = outputs["boxes"][:count] * np.tile(sides / scaled, 2)
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
                outputs["scores"][:count],
                outputs["classes"][:count],
                strict=True,
            )
        ],
    }


def prediction_rows(entry):
    """Returns the CSV rows of an image, one for each object."""
    return [
        [entry["image"], each["label"], each["score"], *each["box"]]
        for each in entry["objects"]
    ]
