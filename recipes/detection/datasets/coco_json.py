"""A file of annotations in COCO's format, read whole and checked.

What is wrong is one `RecipeError` that names the file and the entry: a box that
is dropped or moved in silence would only be seen in the score.
"""

import dataclasses
import itertools
import json

import numpy as np
from absl import logging

from recipes.detection.datasets import json_entries
from recipes.detection.datasets.json_entries import Entries
from recipes.errors import RecipeError

PARTS = ("images", "annotations", "categories")
# What no detector learns from, and by far the largest part of COCO's files.
UNUSED = ("segmentation", "keypoints", "caption")
# How many pixels a box may lie outside of its image: it is dropped as empty.
TOLERANCE = 1.0


@dataclasses.dataclass(frozen=True)
class Columns:
    """The images of a file and, image by image, their m boxes.

    Attributes:
        categories: Dict from the number of a category to its name, by number.
        image_ids: int64 `(n,)`.
        file_names: The n names, as they are written.
        sizes: int64 `(n, 2)`, height and width in pixels.
        offsets: int64 `(n + 1,)`: the rows `offsets[i]` up to `offsets[i + 1]`
            are those of image i.
        boxes: float32 `(m, 4)`, `[ymin, xmin, ymax, xmax]` in pixels.
        labels: int64 `(m,)`, places in `categories`.
        is_crowd: bool `(m,)`.
        areas: float32 `(m,)`, square pixels.
    """

    categories: dict
    image_ids: np.ndarray
    file_names: list
    sizes: np.ndarray
    offsets: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray


def load(path):
    """The columns of a file.

    Raises:
        RecipeError: if the file is not what it should be.
    """
    images, annotations, categories = _parts(path)
    names = _names(categories)
    images.ids()
    image_ids = images.integers("id")
    file_names = images.values("file_name", str)
    sizes = _sizes(images)

    ids = annotations.ids()
    owners = annotations.integers("image_id")
    of_image = json_entries.places(image_ids, owners)
    _reject_unknown(path, ids, of_image, owners, "image", "")
    kinds = annotations.integers("category_id")
    labels = json_entries.places(np.array(list(names), np.int64), kinds)
    known = f" The categories are {', '.join(map(str, names))}."
    _reject_unknown(path, ids, labels, kinds, "category", known)

    boxes = _Boxes(annotations, ids, of_image, file_names).clipped(sizes)
    areas = _areas(annotations, boxes)
    is_crowd = annotations.flags("iscrowd")
    kept = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    _warn_of_empty(path, ids, kept)
    order = np.argsort(of_image, kind="stable")
    order = order[kept[order]]
    counts = np.bincount(of_image[order], minlength=len(image_ids))
    return Columns(
        categories=names,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes[order].astype(np.float32),
        labels=labels[order],
        is_crowd=is_crowd[order],
        areas=areas[order].astype(np.float32),
    )


def _parts(path):
    """The images, annotations and categories as they are written."""
    try:
        with open(path, "rb") as file:
            # Bytes may begin with the mark of their encoding.
            content = json.loads(file.read(), object_hook=_without_unused)
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is no JSON file: {error}.") from error
    content = content if isinstance(content, dict) else {}
    for part in PARTS:
        rows = content.get(part)
        if not isinstance(rows, list) or set(map(type, rows)) - {dict}:
            raise RecipeError(
                f"{path} must hold {part!r}, a list of objects, as COCO's "
                f"files do. It holds: {', '.join(content) or 'none'}."
            )
    for part in ("images", "categories"):
        if not content[part]:
            raise RecipeError(f"{path}: the list {part!r} is empty.")
    return [Entries(path, part, content[part]) for part in PARTS]


def _names(categories):
    """The names of the categories by their numbers, in the order of these."""
    categories.ids()
    ids = categories.integers("id").tolist()
    names = categories.values("name", str)
    return dict(sorted(zip(ids, names, strict=True)))


def _without_unused(entry):
    for key in UNUSED:
        entry.pop(key, None)
    return entry


def _sizes(images):
    """Height and width of each image, int64 `(n, 2)`."""
    sides = [images.integers(key) for key in ("height", "width")]
    sizes = np.stack(sides, axis=1)
    bad = np.any(sizes < 1, axis=1)
    if bad.any():
        row = images.rows[np.argmax(bad)]
        raise RecipeError(
            f"{images.path}: image {row['id']} has height {row['height']} and "
            f"width {row['width']}: both must be at least 1."
        )
    return sizes


def _reject_unknown(path, ids, places, values, kind, known):
    bad = places < 0
    if bad.any():
        first = np.argmax(bad)
        more = np.count_nonzero(bad) - 1
        also = (
            f" {more} more annotations are of an unknown one." if more else ""
        )
        raise RecipeError(
            f"{path}: annotation {ids[first]} is of {kind} {values[first]}, "
            f"which the file does not list.{also}{known}"
        )


class _Boxes:
    """The boxes as they are written, and whose they are."""

    def __init__(self, annotations, ids, of_image, file_names):
        self._path = annotations.path
        self._values = annotations.values("bbox", list)
        self._ids = ids
        self._of_image = of_image
        self._file_names = file_names

    def clipped(self, sizes):
        """float64 `(m, 4)`, `[ymin, xmin, ymax, xmax]` within the images.

        Args:
            sizes: int64 `(n, 2)`, height and width of each image.
        """
        boxes, sizes = self._numbers(), sizes[self._of_image]
        negative = np.any(boxes[:, 2:] < 0, axis=1)
        self._reject(negative, lambda i: "whose width or height is negative")
        low = boxes[:, [1, 0]]
        high = low + boxes[:, [3, 2]]
        outside = (low > sizes + TOLERANCE) | (high < -TOLERANCE)
        self._reject(
            np.any(outside, axis=1),
            lambda i: f"outside of its {sizes[i, 1]}x{sizes[i, 0]} pixels",
        )
        sides = np.clip(low, 0, sizes), np.clip(high, 0, sizes)
        return np.concatenate(sides, axis=1)

    def _numbers(self):
        def form(i):
            return "which is not four finite numbers: x, y, width and height"

        flat = list(itertools.chain.from_iterable(self._values))
        are_numbers = set(map(type, flat)) <= {int, float}
        if not are_numbers or set(map(len, self._values)) - {4}:
            self._reject([not _is_box(value) for value in self._values], form)
        boxes = json_entries.floats(flat).reshape(-1, 4)
        self._reject(~np.all(np.isfinite(boxes), axis=1), form)
        return boxes

    def _reject(self, bad, problem):
        if np.any(bad):
            i = np.argmax(bad)
            image = self._file_names[self._of_image[i]]
            raise RecipeError(
                f"{self._path}: annotation {self._ids[i]} of {image} has the "
                f"box {self._values[i]}, {problem(i)}."
            )


def _is_box(value):
    return len(value) == 4 and all(type(v) in (int, float) for v in value)


def _areas(annotations, boxes):
    """As annotated, else of the box: float64 `(m,)`, square pixels."""
    areas = annotations.amounts("area")
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return np.where(np.isnan(areas), own, areas)


def _warn_of_empty(path, ids, kept):
    if not np.all(kept):
        logging.warning(
            "%s: %d of %d boxes are left out, as no pixel of their images is "
            "in them. The first is annotation %d.",
            path,
            np.count_nonzero(~kept),
            len(kept),
            ids[np.argmin(kept)],
        )
