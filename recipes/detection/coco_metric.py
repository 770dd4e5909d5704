"""Average precision as COCO counts it, by pycocotools and without files."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import math

import numpy as np

from recipes import atomic_io
from recipes.errors import RecipeError

# In the order of pycocotools.
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
# Digits after the point of what is written, and thus of what is counted. With
# one less each, AP moves by up to 0.0005 on boxes of 8 to 16 pixels.
BOX_DIGITS = 3
SCORE_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Detections:
    """What was found on one image, in NumPy.

    Attributes:
        boxes: `(m, 4)`, `[ymin, xmin, ymax, xmax]` in pixels of the image as it
            was read.
        scores: `(m,)`, the larger, the surer.
        labels: `(m,)`, from 0 to the number of classes - 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        summary: The 12 numbers of COCO by `NAMES`, floats from 0 to 1. NaN
            where nothing is annotated, so where pycocotools has -1.
        class_ap: AP of each class by its label, NaN where nothing of that class
            is annotated.
    """

    summary: dict
    class_ap: tuple

    def per_class(self, class_names):
        """AP by the name of the class; with its label where a name is twice."""
        names = list(class_names)
        if len(set(names)) < len(names):
            names = [
                name if names.count(name) == 1 else f"{name} (class {label})"
                for label, name in enumerate(names)
            ]
        if len(set(names)) < len(names):
            # Some class is itself called so.
            names = [f"{n} (class {i})" for i, n in enumerate(class_names)]
        return dict(zip(names, self.class_ap, strict=True))


def require_pycocotools():
    """Checks that pycocotools is there, so that a run can do so at once.

    Raises:
        RecipeError: if it is not.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise RecipeError(
            "the average precision of detections needs pycocotools: "
            "pip install pycocotools"
        )


def evaluate(annotations, detections, category_ids):
    """Counts detections against annotations, image by image.

    What is counted is what `predictions` gives: a file of predictions has
    exactly this AP. Of an image at most 100 detections of a class count, those
    with the largest scores. A detection in a crowd box is neither right nor
    wrong. Small, medium and large go by the annotated area.

    Args:
        annotations: One for each image, see `sources.Annotation`.
        detections: `Detections` of the same images in the same order.
        category_ids: The category id in COCO of each label.

    Returns:
        An `Evaluation`.

    Raises:
        RecipeError: if pycocotools is not installed.
        ValueError: if there are not as many detections as annotations, an image
            comes twice, or a label, box or score cannot be.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    found = to_predictions(annotations, detections, category_ids)
    truths = _truths(annotations, category_ids)
    # It tells of its progress, on the same terminal as the recipe.
    with contextlib.redirect_stdout(io.StringIO()):
        indices = [
            _index(annotations, category_ids, rows)
            for rows in (truths, [_with_area(row) for row in found])
        ]
        counted = COCOeval(*indices, "bbox")
        counted.evaluate()
        counted.accumulate()
        counted.summarize()
    # By IoU threshold, recall, class; of all areas and up to 100 detections.
    precision = counted.eval["precision"][..., 0, -1]
    # There the classes are in the order of their ids.
    places = np.argsort(np.argsort(category_ids))
    return Evaluation(
        summary=dict(zip(NAMES, map(_known, counted.stats), strict=True)),
        class_ap=tuple(_known(precision[..., k].mean()) for k in places),
    )


def average_precision(annotations, detections, category_ids):
    """The summary of `evaluate`: COCO's 12 numbers by `NAMES`."""
    return evaluate(annotations, detections, category_ids).summary


def to_predictions(annotations, detections, category_ids):
    """Detections as a list in COCO's format of results.

    Args and ValueError are those of `evaluate`.

    Returns:
        Dicts of plain Python numbers, ready for JSON: image_id, category_id,
        bbox as `[x, y, width, height]` in pixels, score.
    """
    _check(annotations, detections, category_ids)
    return [
        {
            "image_id": int(annotation.image_id),
            "category_id": int(category_ids[label]),
            "bbox": [round(edge, BOX_DIGITS) for edge in box],
            "score": round(score, SCORE_DIGITS),
        }
        for annotation, found in zip(annotations, detections, strict=True)
        for box, score, label in zip(
            _sides(found.boxes),
            np.asarray(found.scores, np.float64).tolist(),
            found.labels,
            strict=True,
        )
    ]


def write_predictions(path, annotations, detections, category_ids):
    """Writes `predictions` to a JSON file."""
    results = to_predictions(annotations, detections, category_ids)
    atomic_io.write_text(path, json.dumps(results))


def _check(annotations, detections, category_ids):
    if len(annotations) != len(detections):
        raise ValueError(
            "Every image needs its annotation and its detections. Received: "
            f"{len(annotations)} annotations, {len(detections)} detections."
        )
    seen = set()
    for annotation, found in zip(annotations, detections, strict=True):
        image_id = annotation.image_id
        if image_id in seen:
            raise ValueError(f"Image {image_id} comes twice.")
        seen.add(image_id)
        labels = np.concatenate([annotation.labels, found.labels])
        # A negative one would be that of a class, counted from the end.
        if ((labels < 0) | (labels >= len(category_ids))).any():
            raise ValueError(
                f"Labels of image {image_id} must be from 0 to "
                f"{len(category_ids) - 1}. Received: {labels}."
            )
        boxes, scores = np.asarray(found.boxes), np.asarray(found.scores)
        numbers = np.isfinite(boxes).all() and np.isfinite(scores).all()
        if not numbers or (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError(
                f"Detections on image {image_id} must be finite and end after "
                f"they begin. Received: boxes={boxes}, scores={scores}."
            )


def _truths(annotations, category_ids):
    """The annotated boxes of all images, as pycocotools has them."""
    return [
        {
            "image_id": int(annotation.image_id),
            "category_id": int(category_ids[label]),
            "bbox": box,
            "area": float(area),
            "iscrowd": int(is_crowd),
        }
        for annotation in annotations
        for box, label, area, is_crowd in zip(
            _sides(annotation.boxes),
            annotation.labels,
            annotation.areas,
            annotation.is_crowd,
            strict=True,
        )
    ]


def _with_area(row):
    _, _, width, height = row["bbox"]
    return row | {"area": width * height}


def _index(annotations, category_ids, rows):
    # Not by COCO.loadRes, which fails where nothing was found.
    from pycocotools.coco import COCO

    index = COCO()
    index.dataset = {
        "images": [{"id": int(each.image_id)} for each in annotations],
        "categories": [{"id": int(key)} for key in category_ids],
        # An id of 0 would mean that there is no match.
        "annotations": [row | {"id": i} for i, row in enumerate(rows, 1)],
    }
    index.createIndex()
    return index


def _sides(boxes):
    """`[ymin, xmin, ymax, xmax]` to lists `[x, y, width, height]`."""
    top, left, bottom, right = np.asarray(boxes, np.float64).reshape(-1, 4).T
    return np.stack([left, top, right - left, bottom - top], -1).tolist()


def _known(value):
    return math.nan if value < 0 else float(value)
