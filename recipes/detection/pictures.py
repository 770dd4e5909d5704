"""Images of the newest evaluation with their boxes, for the report."""

import html
import json

import numpy as np
import tensorflow as tf

from recipes.data import image_files
from recipes.detection import coco_metric
from recipes.detection import visualization
from recipes.detection.evaluator import PER_CLASS
from recipes.detection.evaluator import PREDICTIONS
from recipes.run_dir import metrics_log

HEADINGS = {"evaluation": "Evaluation images", "train": "Training images"}
NUM_IMAGES = 12
# Classes are listed where there are so many.
MANY = 2


def page(config, data):
    """HTML: images with what is annotated and what was found, AP by class.

    Args:
        config: A `DetectionConfig`.
        data: Its `Data`.
    """
    parts = []
    for split, heading in HEADINGS.items():
        path = config.folder / PREDICTIONS[split]
        if path.exists():
            rows = []
            with metrics_log.skip_if_damaged(path):
                found = json.loads(path.read_bytes())
                rows = chosen(getattr(data.source, split), data.source, found)
            if rows:
                columns = zip(*rows, strict=True)
                image = visualization.page(*columns, data.source.class_names)
                parts.append(f"<h2>{heading}</h2>\n{image}")
    path = config.folder / PER_CLASS
    if path.exists() and data.num_classes >= MANY:
        with metrics_log.skip_if_damaged(path):
            parts.append(_by_class(json.loads(path.read_bytes())))
    return "\n".join(parts)


def chosen(split, source, predictions, count=NUM_IMAGES):
    """Images of a split with their predictions, evenly out of those with boxes.

    What cannot be decoded, or is not of the annotated size, is left out: it was
    named when it was evaluated.

    Args:
        split: A `Split`.
        source: Its `Source`.
        predictions: List of dicts in COCO's format of results.
        count: How many images at most.

    Returns:
        List of image uint8 `(height, width, 3)`, `Annotation` and
        `metric.Detections`.
    """
    every = split.annotations()
    shown = [i for i, annotation in enumerate(every) if len(annotation.boxes)]
    step = max(len(shown) / count, 1.0)
    shown = [shown[int(place)] for place in np.arange(0, len(shown), step)]
    rows = []
    for i in shown[:count]:
        try:
            example = split.read(tf.constant(i, tf.int64))
            image = image_files.decode(example["image"], 3)
        except tf.errors.OpError:
            continue
        size = example.get("size")
        if size is not None and image.shape[:2] != size.numpy().tolist():
            continue
        found = _detections(every[i].image_id, source, predictions)
        rows.append((image.numpy(), every[i], found))
    return rows


def _detections(image_id, source, predictions):
    rows = [row for row in predictions if row["image_id"] == image_id]
    boxes = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
    left, top, width, height = boxes.T
    return coco_metric.Detections(
        boxes=np.stack([top, left, top + height, left + width], axis=1),
        scores=np.array([row["score"] for row in rows]),
        labels=np.array(
            [source.category_ids.index(row["category_id"]) for row in rows],
            np.int64,
        ),
    )


def _by_class(per_class):
    """AP of each class as a table, the best first."""
    known = {k: v for k, v in per_class.items() if v is not None}
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.1%}</td></tr>\n"
        for name, value in sorted(known.items(), key=lambda item: -item[1])
    )
    return f"<h2>AP by class</h2>\n<table>\n{rows}</table>"
