"""Predicts the labels of images for `--mode=predict`."""

import numpy as np
import tensorflow as tf

from recipes.classification import datasets
from recipes.classification import examples as examples_lib
from recipes.data.input_pipeline import ExampleReader

COLUMNS = ("image", "label", "score")
DIGITS = 6


def open_images(metadata, paths):
    """Returns a `Source` of images whose labels are their indices."""
    split = datasets.make_file_split(paths, np.arange(len(paths)))
    return datasets.Source(
        class_names=tuple(metadata["class_names"]),
        num_channels=metadata["num_channels"],
        train=split,
        evaluation=split,
        augmentation=metadata["suited_augmentation"],
    )


def image_examples(config, source, bad_images):
    """Returns the `ExampleReader` of images, preprocessed as in evaluation."""
    reader = examples_lib.evaluation_examples(config, source, bad_images)

    def padding():
        image, _, weight = reader.padding()
        return image, tf.constant(-1, tf.int64), weight

    return ExampleReader(reader.read, padding)


def predict_batch(config, trainer, batch):
    """Returns the index, weight, label and score of each image."""
    del config
    images, indices, weights = batch
    with trainer.inference_weights():
        logits = tf.cast(trainer.model(images, training=False), tf.float32)
    return {
        "indices": indices,
        "weights": weights,
        "labels": tf.math.top_k(logits).indices[:, 0],
        "scores": tf.reduce_max(tf.nn.softmax(logits), axis=-1),
    }


def make_entry(config, class_names, outputs):
    """Returns the label and score of an image."""
    del config
    return {
        "label": class_names[int(outputs["labels"])],
        "score": round(float(outputs["scores"]), DIGITS),
    }


def make_lines(entry):
    """Returns the CSV lines of an image."""
    return [[entry[name] for name in COLUMNS]]
