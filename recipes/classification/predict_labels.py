"""Images without labels for a classifier, see `predict`."""

import numpy as np
import tensorflow as tf

from recipes.classification import datasets
from recipes.classification import examples as examples_lib
from recipes.data.input_pipeline import ExampleReader

COLUMNS = ("image", "label", "score")
DIGITS = 6


def source(facts, paths):
    """A source of images whose labels are their numbers."""
    split = datasets.make_file_split(paths, np.arange(len(paths)))
    return datasets.Source(
        class_names=tuple(facts["class_names"]),
        num_channels=facts["num_channels"],
        train=split,
        evaluation=split,
        augmentation=facts["suited_augmentation"],
    )


def examples(config, source, bad_images):
    """The `ExampleReader` of the images: as in evaluation."""
    reader = examples_lib.evaluation_examples(config, source, bad_images)

    def padding():
        image, _, weight = reader.padding()
        return image, tf.constant(-1, tf.int64), weight

    return ExampleReader(reader.read, padding)


def outputs(config, trainer, batch):
    """Number, weight, label and its probability of each image."""
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


def entry(config, class_names, row):
    """The label and the score of an image."""
    del config
    return {
        "label": class_names[int(row["labels"])],
        "score": round(float(row["scores"]), DIGITS),
    }


def table(entry):
    """The row of an image."""
    return [[entry[name] for name in COLUMNS]]
