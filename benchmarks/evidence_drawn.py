"""Images with what is annotated and what a detector found, for a page."""

import json

import numpy as np
import tensorflow as tf

from recipes import whole
from recipes.detection import drawing
from recipes.detection import metric
from recipes.detection import sources
from recipes.detection.average_precision import PREDICTIONS

# How many images of a split are drawn, and what they are called.
DRAWN = {"train": (12, "training"), "evaluation": (8, "held-out")}
DPI, QUALITY = 100, 72


def save(config, path):
    """Writes images of a run that evaluated both splits.

    Args:
        config: The `DetectionConfig` of the run.
        path: Path of the JPEG file.
    """
    source = sources.open_source(config)
    rows, names = [], []
    for split, (count, name) in DRAWN.items():
        found = json.loads((config.folder / PREDICTIONS[split]).read_text())
        chosen = _images(getattr(source, split), source, found, count)
        rows += chosen
        names += [name] * len(chosen)
    columns = map(list, zip(*rows, strict=True))
    figure = drawing.draw(*columns, source.class_names)
    for axes, name in zip(figure.axes, names, strict=True):
        axes.title.set_text(f"{name} {axes.get_title()}")
    with whole.file(path) as place:
        figure.savefig(place, dpi=DPI, pil_kwargs={"quality": QUALITY})


def _images(split, source, predictions, count):
    """`(image, annotation, detections)`, evenly out of those with boxes."""
    annotations = split.annotations()
    shown = [i for i, each in enumerate(annotations) if len(each.boxes)]
    places = np.linspace(0, len(shown) - 1, min(count, len(shown)))
    images = []
    for place in places.round().astype(int):
        index = shown[place]
        encoded = split.read(tf.constant(index, tf.int64))["image"]
        image = tf.io.decode_image(encoded, 3, expand_animations=False)
        annotation = annotations[index]
        found = _detections(annotation.image_id, source, predictions)
        images.append((image.numpy(), annotation, found))
    return images


def _detections(image_id, source, predictions):
    """The `metric.Detections` of an image, out of COCO's format of results."""
    rows = [row for row in predictions if row["image_id"] == image_id]
    boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    left, top, width, height = boxes.T
    ids = source.category_ids
    return metric.Detections(
        boxes=np.stack([top, left, top + height, left + width], axis=1),
        scores=np.array([row["score"] for row in rows]),
        labels=np.array([ids.index(r["category_id"]) for r in rows], np.int64),
    )
