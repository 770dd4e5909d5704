"""Reads and validates an annotation file in COCO's JSON format.

An invalid entry raises a one-line `RecipeError` that names the file and the
entry. A box that was silently dropped or moved would only show in the score.
`pycocotools.coco.COCO` validates nothing and silently keeps the last of two
entries with the same id.
"""

import collections
import json
import math

import numpy as np
from absl import logging

from recipes.detection.datasets.annotations import Annotation
from recipes.errors import RecipeError

# Unused by the detector, and by far the largest part of COCO's files.
UNUSED_KEYS = ("segmentation", "keypoints", "caption")
# Number of pixels by which a box may lie outside its image. Such a box is
# dropped as empty instead of being an error.
TOLERANCE = 1.0
MAX_INT64 = 2**63 - 1
MAX_FLOAT32 = float(np.finfo(np.float32).max)


def _is_number(value, low, high):
    return type(value) in (int, float) and low <= value <= high


def _is_integer(value, low=-math.inf, high=math.inf):
    return _is_number(value, low, high) and value % 1 == 0


def _is_box(value):
    return (
        type(value) is list
        and len(value) == 4
        and all(_is_number(x, -MAX_FLOAT32, MAX_FLOAT32) for x in value)
    )


_INTEGER = _is_integer, "an integer"
_INT64 = lambda v: _is_integer(v, -(2**63), MAX_INT64), "an integer of 64 bits"
_SIZE = lambda v: _is_integer(v, 1, MAX_INT64), "an integer of at least 1"
_STRING = lambda v: type(v) is str, "a string"
_CROWD = lambda v: v in (None, 0, 1), "0 or 1"
_AREA = (
    lambda v: v is None or _is_number(v, 0, MAX_FLOAT32),
    "a finite number of at least 0",
)
# The check of each value of an entry, and its wording in an error.
RULES = {
    "images": {
        "id": _INT64,
        "file_name": _STRING,
        "height": _SIZE,
        "width": _SIZE,
    },
    "annotations": {
        "id": _INTEGER,
        "image_id": _INTEGER,
        "category_id": _INTEGER,
        "iscrowd": _CROWD,
        "area": _AREA,
        "bbox": (_is_box, "four finite numbers: x, y, width and height"),
    },
    "categories": {"id": _INT64, "name": _STRING},
}


def load(path):
    """Reads a file and validates it.

    Args:
        path: Path of the JSON file.

    Returns:
        `(categories, file_names, annotations)`: a dict from category id to
        name, sorted by id, where the position is the label; the file name of
        each image, as written in the file; and the `Annotation` of each image.

    Raises:
        RecipeError: if the file cannot be read or an entry is invalid.
    """
    content = _read_lists(path)
    for name in RULES:
        _check_entries(path, name, content[name])
    names = {int(e["id"]): e["name"] for e in content["categories"]}
    categories = dict(sorted(names.items()))
    labels = {key: label for label, key in enumerate(categories)}
    images = {int(entry["id"]): entry for entry in content["images"]}
    objects = {image_id: [] for image_id in images}
    empty = []
    for entry in content["annotations"]:
        for key, known in (("image_id", images), ("category_id", labels)):
            if entry[key] not in known:
                text = f" The categories are {', '.join(map(str, labels))}."
                raise RecipeError(
                    f"{path}: annotation {entry['id']} has {key} {entry[key]}, "
                    f"which the file does not list.{text * (known is labels)}"
                )
        box = _clip_box(path, entry, images[entry["image_id"]])
        height, width = box[2] - box[0], box[3] - box[1]
        if height <= 0 or width <= 0:
            empty.append(entry["id"])
            continue
        area = entry.get("area")
        area = height * width if area is None else float(area)
        label, is_crowd = labels[entry["category_id"]], entry.get("iscrowd")
        objects[entry["image_id"]].append((box, label, bool(is_crowd), area))
    if empty:
        logging.warning(
            "%s: dropped %d of %d boxes that contain no pixel of their image. "
            "The first is annotation %d.",
            path,
            len(empty),
            len(content["annotations"]),
            empty[0],
        )
    file_names = [entry["file_name"] for entry in images.values()]
    annotations = [_to_annotation(e, objects[i]) for i, e in images.items()]
    return categories, file_names, annotations


def _read_lists(path):
    """Returns the images, annotations and categories as lists of dicts."""
    try:
        with open(path, "rb") as file:
            # Bytes, because `json.loads` detects UTF-8 with BOM and UTF-16.
            content = json.loads(file.read(), object_hook=_drop_unused_keys)
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not a JSON file: {error}.") from error
    content = content if isinstance(content, dict) else {}
    for name in RULES:
        entries = content.get(name)
        if not isinstance(entries, list) or set(map(type, entries)) - {dict}:
            raise RecipeError(
                f"{path} must contain {name!r}, a list of objects, as in "
                f"COCO's files. It contains: {', '.join(content) or 'nothing'}."
            )
        if not entries and name != "annotations":
            raise RecipeError(f"{path}: the list {name!r} is empty.")
    return content


def _drop_unused_keys(entry):
    for key in UNUSED_KEYS:
        entry.pop(key, None)
    return entry


def _check_entries(path, name, entries):
    """Checks the values of a list, and that its ids are distinct."""
    for key, (is_valid, expected) in RULES[name].items():
        for i, entry in enumerate(entries):
            if not is_valid(entry.get(key)):
                which = f"entry {i} of {name!r}, counted from 0,"
                if key != "id":
                    which = f"the entry of {name!r} with the id {entry['id']!r}"
                received = repr(entry[key]) if key in entry else "no such key"
                raise RecipeError(
                    f"{path}: {which} must have {key!r}, {expected}. "
                    f"Received: {received}."
                )
    counts = collections.Counter(entry["id"] for entry in entries)
    for value, count in counts.most_common(1):
        if count > 1:
            raise RecipeError(
                f"{path}: the id {value} occurs {count} times in {name!r}."
            )


def _clip_box(path, entry, image):
    """Returns `(ymin, xmin, ymax, xmax)` of an annotation within its image."""
    x, y, box_width, box_height = map(float, entry["bbox"])
    height, width = int(image["height"]), int(image["width"])
    right, bottom = x + box_width, y + box_height
    negative = min(box_width, box_height) < 0
    if negative or max(x - width, y - height, -right, -bottom) > TOLERANCE:
        problem = f"which lies outside its {width}x{height} pixels"
        if negative:
            problem = "whose width or height is negative"
        raise RecipeError(
            f"{path}: annotation {entry['id']} of {image['file_name']} has the "
            f"box {entry['bbox']}, {problem}."
        )
    left, right = (min(max(edge, 0.0), width) for edge in (x, right))
    top, bottom = (min(max(edge, 0.0), height) for edge in (y, bottom))
    return top, left, bottom, right


def _to_annotation(image, objects):
    """Returns the `Annotation` of an image with a list of objects."""
    boxes, labels, is_crowd, areas = (
        zip(*objects, strict=True) if objects else [()] * 4
    )
    return Annotation(
        image_id=int(image["id"]),
        height=int(image["height"]),
        width=int(image["width"]),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64),
        is_crowd=np.array(is_crowd, bool),
        areas=np.array(areas, np.float32),
    )
