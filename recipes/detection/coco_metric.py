"""COCO metrics, computed by pycocotools from arrays in memory."""

import contextlib
import dataclasses
import importlib.util
import io
import json
import math

import numpy as np

from recipes import atomic_io
from recipes.errors import RecipeError

# Metric names in the order of pycocotools.
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
# Decimal places of the predictions file, which are also used for the metrics.
# With one less, AP changes by up to 0.0005 on boxes of 8 to 16 pixels.
BOX_DIGITS = 3
SCORE_DIGITS = 6


@dataclasses.dataclass(frozen=True)
class Detections:
    """Detections on one image, as NumPy arrays.

    Attributes:
        boxes: `(m, 4)`, `[ymin, xmin, ymax, xmax]` in pixels of the original
            image.
        scores: `(m,)`.
        labels: `(m,)`, from 0 to the number of classes - 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation.

    Attributes:
        summary: Dict of COCO's 12 metrics by `NAMES`, floats from 0 to 1. NaN
            if nothing is annotated, for which pycocotools returns -1.
        class_ap: Tuple of the AP of each class, NaN for classes without
            annotations.
    """

    summary: dict
    class_ap: tuple

    def per_class(self, class_names):
        """Returns AP by class name; duplicate names include the label."""
        names = list(class_names)
        if len(set(names)) < len(names):
            names = [
                name if names.count(name) == 1 else f"{name} (class {label})"
                for label, name in enumerate(names)
            ]
        if len(set(names)) < len(names):
            # Another class already has such a name.
            names = [f"{n} (class {i})" for i, n in enumerate(class_names)]
        return dict(zip(names, self.class_ap, strict=True))


def require_pycocotools():
    """Checks that pycocotools is installed.

    Raises:
        RecipeError: if it is not installed.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise RecipeError(
            "COCO metrics need pycocotools. Install it with: "
            "pip install pycocotools"
        )


def evaluate(annotations, detections, category_ids):
    """Computes the COCO metrics of detections.

    The detections are rounded as in `to_predictions`, so that the predictions
    file has the same metrics. At most 100 detections per image and class
    count, those with the highest scores. Detections in a crowd count neither as
    true nor as false positives. Small, medium and large refer to the annotated
    area.

    Args:
        annotations: The `Annotation` of each image.
        detections: The `Detections` of the same images in the same order.
        category_ids: The category id of each label.

    Returns:
        An `Evaluation`.

    Raises:
        RecipeError: if pycocotools is not installed.
        ValueError: if the lengths differ, an image id is not unique, or a
            label, box or score is invalid.
    """
    require_pycocotools()
    from pycocotools.cocoeval import COCOeval

    found = to_predictions(annotations, detections, category_ids)
    ground_truth = _to_ground_truth(annotations, category_ids)
    # pycocotools prints its progress.
    with contextlib.redirect_stdout(io.StringIO()):
        cocos = [
            _make_coco(annotations, category_ids, entries)
            for entries in (ground_truth, [_with_area(each) for each in found])
        ]
        evaluation = COCOeval(*cocos, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # By IoU threshold, recall and class; for all areas and 100 detections.
    precision = evaluation.eval["precision"][..., 0, -1]
    # pycocotools sorts the classes by category id.
    places = np.argsort(np.argsort(category_ids))
    return Evaluation(
        summary=dict(zip(NAMES, map(_to_nan, evaluation.stats), strict=True)),
        class_ap=tuple(_to_nan(precision[..., k].mean()) for k in places),
    )


def to_predictions(annotations, detections, category_ids):
    """Converts detections to COCO's results format.

    Arguments and errors: see `evaluate`.

    Returns:
        List of dicts that can be written as JSON: image_id, category_id, bbox
        as `[x, y, width, height]` in pixels, and score.
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
            _to_xywh(found.boxes),
            np.asarray(found.scores, np.float64).tolist(),
            found.labels,
            strict=True,
        )
    ]


def write_predictions(path, annotations, detections, category_ids):
    """Writes the result of `to_predictions` to a JSON file."""
    results = to_predictions(annotations, detections, category_ids)
    atomic_io.write_text(path, json.dumps(results))


def _check(annotations, detections, category_ids):
    if len(annotations) != len(detections):
        raise ValueError(
            "Every image needs one annotation and one `Detections`. Received: "
            f"{len(annotations)} annotations, {len(detections)} detections."
        )
    seen = set()
    for annotation, found in zip(annotations, detections, strict=True):
        image_id = annotation.image_id
        if image_id in seen:
            raise ValueError(
                f"Image ids must be unique. Received: {image_id} twice."
            )
        seen.add(image_id)
        labels = np.concatenate([annotation.labels, found.labels])
        # A negative label would index the classes from the end.
        if ((labels < 0) | (labels >= len(category_ids))).any():
            raise ValueError(
                f"Labels of image {image_id} must be from 0 to "
                f"{len(category_ids) - 1}. Received: {labels}."
            )
        boxes, scores = np.asarray(found.boxes), np.asarray(found.scores)
        is_finite = np.isfinite(boxes).all() and np.isfinite(scores).all()
        if not is_finite or (boxes[:, 2:] < boxes[:, :2]).any():
            raise ValueError(
                f"Detections on image {image_id} must be finite, with ymin <= "
                f"ymax and xmin <= xmax. Received: boxes={boxes}, "
                f"scores={scores}."
            )


def _to_ground_truth(annotations, category_ids):
    """Converts the annotations of all images to COCO's format."""
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
            _to_xywh(annotation.boxes),
            annotation.labels,
            annotation.areas,
            annotation.is_crowd,
            strict=True,
        )
    ]


def _with_area(entry):
    _, _, width, height = entry["bbox"]
    return entry | {"area": width * height}


def _make_coco(annotations, category_ids, entries):
    # COCO.loadRes fails if there are no detections.
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": int(each.image_id)} for each in annotations],
        "categories": [{"id": int(key)} for key in category_ids],
        # pycocotools treats a match with id 0 as no match.
        "annotations": [
            entry | {"id": i} for i, entry in enumerate(entries, 1)
        ],
    }
    coco.createIndex()
    return coco


def _to_xywh(boxes):
    """Converts `[ymin, xmin, ymax, xmax]` to lists `[x, y, width, height]`."""
    top, left, bottom, right = np.asarray(boxes, np.float64).reshape(-1, 4).T
    return np.stack([left, top, right - left, bottom - top], -1).tolist()


def _to_nan(value):
    return math.nan if value < 0 else float(value)
