"""Reads and validates an annotation file in COCO's JSON format.

An invalid entry raises a one-line `RecipeError` that names the file and the
entry. A box that was silently dropped or moved would only show in the score.
"""

import collections
import dataclasses
import json
import math

import numpy as np
from absl import logging

from recipes.detection.datasets.annotations import Annotation
from recipes.errors import RecipeError

LISTS = ("images", "annotations", "categories")
# Unused by the detector, and by far the largest part of COCO's files.
UNUSED_KEYS = ("segmentation", "keypoints", "caption")
# Number of pixels by which a box may lie outside its image. Such a box is
# dropped as empty instead of being an error.
TOLERANCE = 1.0
MAX_INT64 = 2**63 - 1
MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """The content of an annotation file.

    Attributes:
        categories: Dict from category id to category name, sorted by id. A
            label is a position in it.
        file_names: File name of each image, as written in the file.
        annotations: The `Annotation` of each image.
    """

    categories: dict
    file_names: list
    annotations: list


def load(path):
    """Reads a file and validates it.

    Entries are checked one by one in Python. `pycocotools.coco.COCO` validates
    nothing and silently keeps the last of two entries with the same id.

    Args:
        path: Path of the JSON file.

    Returns:
        A `CocoFile`.

    Raises:
        RecipeError: if the file cannot be read or an entry is invalid.
    """
    entries = _read_lists(path)
    categories = _read_categories(path, entries["categories"])
    images = _read_images(path, entries["images"])
    labels = {key: label for label, key in enumerate(categories)}
    objects = {image_id: [] for image_id in images}
    _check_unique_ids(path, "annotations", entries["annotations"])
    empty = []
    for entry in entries["annotations"]:
        found = _read_object(path, entry, images, labels)
        ymin, xmin, ymax, xmax = found[0]
        if ymin < ymax and xmin < xmax:
            objects[entry["image_id"]].append(found)
        else:
            empty.append(entry["id"])
    if empty:
        logging.warning(
            "%s: dropped %d of %d boxes that contain no pixel of their image. "
            "The first is annotation %d.",
            path,
            len(empty),
            len(entries["annotations"]),
            empty[0],
        )
    return CocoFile(
        categories=categories,
        file_names=[entry["file_name"] for entry in images.values()],
        annotations=[
            _to_annotation(entry, objects[image_id])
            for image_id, entry in images.items()
        ],
    )


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
    for name in LISTS:
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


def _read_categories(path, entries):
    """Returns a dict from category id to name, sorted by id."""
    _check_unique_ids(path, "categories", entries, limit=MAX_INT64)
    for i, entry in enumerate(entries):
        if type(entry.get("name")) is not str:
            raise _invalid(path, "categories", i, entry, "name", "a string")
    names = {int(entry["id"]): entry["name"] for entry in entries}
    return dict(sorted(names.items()))


def _read_images(path, entries):
    """Returns a dict from image id to entry."""
    _check_unique_ids(path, "images", entries, limit=MAX_INT64)
    for i, entry in enumerate(entries):
        if type(entry.get("file_name")) is not str:
            raise _invalid(path, "images", i, entry, "file_name", "a string")
        for key in ("height", "width"):
            side = entry.get(key)
            if not (_is_integer(side) and 1 <= side <= MAX_INT64):
                expected = "an integer of at least 1"
                raise _invalid(path, "images", i, entry, key, expected)
    return {int(entry["id"]): entry for entry in entries}


def _check_unique_ids(path, name, entries, limit=math.inf):
    """Raises an error unless all ids are distinct integers within a limit."""
    for i, entry in enumerate(entries):
        value = entry.get("id")
        if not (_is_integer(value) and -limit <= value <= limit):
            expected = "an integer" + " of 64 bits" * (limit < math.inf)
            raise _invalid(path, name, i, entry, "id", expected)
    counts = collections.Counter(entry["id"] for entry in entries)
    ((value, count),) = counts.most_common(1) or [(None, 0)]
    if count > 1:
        raise RecipeError(
            f"{path}: the id {value} occurs {count} times in {name!r}."
        )


def _is_integer(value):
    """Returns True for an int and for a float without a fraction."""
    return type(value) is int or (type(value) is float and value.is_integer())


def _invalid(path, name, i, entry, key, expected):
    """Returns the error for an entry's value."""
    which = f"entry {i} of {name!r}, counted from 0,"
    if key != "id":
        which = f"the entry of {name!r} with the id {entry['id']!r}"
    received = repr(entry[key]) if key in entry else "no such key"
    return RecipeError(
        f"{path}: {which} must have {key!r}, {expected}. Received: {received}."
    )


def _read_object(path, entry, images, labels):
    """Returns `(box, label, is_crowd, area)` of an annotation.

    The box is `(ymin, xmin, ymax, xmax)`, clipped to the image.
    """
    for key, known in (("image_id", images), ("category_id", labels)):
        value = entry.get(key)
        if not _is_integer(value):
            raise _invalid(path, "annotations", None, entry, key, "an integer")
        if value not in known:
            hint = f" The categories are {', '.join(map(str, labels))}."
            raise RecipeError(
                f"{path}: annotation {entry['id']} has {key} {value}, which "
                f"the file does not list.{hint * (known is labels)}"
            )
    crowd = entry.get("iscrowd")
    if crowd is not None and (
        type(crowd) not in (int, float, bool) or crowd not in (0, 1)
    ):
        raise _invalid(path, "annotations", None, entry, "iscrowd", "0 or 1")
    box = _clip_box(path, entry, images[entry["image_id"]])
    area = entry.get("area")
    if area is None:
        area = (box[2] - box[0]) * (box[3] - box[1])
    elif not (_is_finite(area) and area >= 0):
        expected = "a finite number of at least 0"
        raise _invalid(path, "annotations", None, entry, "area", expected)
    return box, labels[entry["category_id"]], bool(crowd), float(area)


def _clip_box(path, entry, image):
    """Returns `(ymin, xmin, ymax, xmax)` of an annotation within its image."""
    box = entry.get("bbox")
    height, width = int(image["height"]), int(image["width"])
    if type(box) is not list or len(box) != 4 or not all(map(_is_finite, box)):
        problem = "which is not four finite numbers: x, y, width and height"
        raise _invalid_box(path, entry, image, problem)
    x, y, box_width, box_height = map(float, box)
    if box_width < 0 or box_height < 0:
        problem = "whose width or height is negative"
        raise _invalid_box(path, entry, image, problem)
    right, bottom = x + box_width, y + box_height
    if (
        max(x - width, y - height) > TOLERANCE
        or min(right, bottom) < -TOLERANCE
    ):
        problem = f"which lies outside its {width}x{height} pixels"
        raise _invalid_box(path, entry, image, problem)
    return (
        min(max(y, 0.0), height),
        min(max(x, 0.0), width),
        min(max(bottom, 0.0), height),
        min(max(right, 0.0), width),
    )


def _invalid_box(path, entry, image, problem):
    """Returns the error for an annotation's box."""
    return RecipeError(
        f"{path}: annotation {entry['id']} of {image['file_name']} has the box "
        f"{entry.get('bbox')}, {problem}."
    )


def _is_finite(value):
    """Returns True for a finite number that float32 can hold."""
    return type(value) in (int, float) and abs(value) <= MAX_FLOAT32


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
