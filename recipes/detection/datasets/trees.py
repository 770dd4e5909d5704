"""The dataset `trees`: tiles of aerial photos with boxes around trees.

A small, real dataset: one photo for training, and three photos of other places
for evaluation. With a single training photo, evaluation scores stay low: the
dataset shows that a detector learns, not that it generalizes.
"""

import json
import pathlib
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes import atomic_io
from recipes.data import deepforest_photos
from recipes.detection.datasets import coco_folder
from recipes.errors import RecipeError

PHOTOS = {
    "train": ("2019_YELL_2_528000_4978000_image_crop2",),
    "val": (
        "2019_YELL_2_541000_4977000_image_crop",
        "OSBS_029",
        "SOAP_061",
    ),
}
FOLDER = "tree_tiles"
SIZE = 128
# A tile contains a box with at least this fraction of its area inside.
MIN_INSIDE = 0.5


def open_trees(data_dir=None):
    """Opens the dataset, and prepares its files first if necessary.

    Args:
        data_dir: Path of the folder that contains the folder `tree_tiles`, or
            in which it is created; None for the default of TFDS.

    Returns:
        A `Source`.

    Raises:
        RecipeError: if the photos cannot be downloaded, or the folder cannot be
            written.
    """
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR)
    root = data_dir.expanduser() / FOLDER
    if not root.exists():
        _prepare(root)
    return coco_folder.open_folder(root)


def split_into_tiles(photo, boxes):
    """Splits a photo into tiles and drops remainders at the right and bottom.

    Args:
        photo: uint8 `(height, width, 3)`.
        boxes: List of `[left, top, right, bottom]` in pixels.

    Yields:
        `(top, left, pixels, boxes)`, where the boxes are float64 `(n, 4)`,
        `[left, top, right, bottom]` in pixels of the tile and clipped to it.
    """
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    areas = _area(boxes)
    for top in range(0, photo.shape[0] - SIZE + 1, SIZE):
        for left in range(0, photo.shape[1] - SIZE + 1, SIZE):
            moved = boxes - np.array([left, top, left, top])
            clipped = np.clip(moved, 0, SIZE)
            inside = _area(clipped) >= MIN_INSIDE * areas
            inside &= _area(clipped) > 0
            pixels = photo[top : top + SIZE, left : left + SIZE]
            yield top, left, pixels, clipped[inside]


def _area(boxes):
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _prepare(root):
    """Writes the folder atomically."""
    print(
        f"downloading {deepforest_photos.PACKAGE}'s photos of trees (21 MB) to "
        f"{root}"
    )
    try:
        with (
            # Another run may write it at the same time.
            atomic_io.atomic_dir(root, replace=False) as new,
            deepforest_photos.open_wheel(root.parent) as wheel,
            zipfile.ZipFile(wheel) as archive,
        ):
            _write(archive, new)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise RecipeError(
            f"--dataset=trees cannot be written to {root}: {error}. Set "
            "another --data_dir."
        ) from error


def _write(archive, root):
    """Writes the tiles as PNG files, and their boxes in COCO's layout."""
    (root / "annotations").mkdir(parents=True)
    for split, photos in PHOTOS.items():
        (root / split).mkdir()
        images, annotations = [], []
        for name in photos:
            photo, boxes = deepforest_photos.read_photo(archive, name)
            for top, left, pixels, inside in split_into_tiles(photo, boxes):
                file_name = f"{name}_{top}_{left}.png"
                encoded = tf.io.encode_png(pixels).numpy()
                (root / split / file_name).write_bytes(encoded)
                images.append(_image(len(images) + 1, file_name))
                for box in inside.tolist():
                    number = len(annotations) + 1
                    annotations.append(_annotation(number, len(images), box))
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "tree"}],
        }
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content))
        with_trees = len({each["image_id"] for each in annotations})
        print(
            f"{split}: {len(images)} tiles of {SIZE}x{SIZE} pixels, "
            f"{with_trees} of them with {len(annotations)} trees"
        )


def _image(number, file_name):
    size = {"height": SIZE, "width": SIZE}
    return {"id": number, "file_name": file_name, **size}


def _annotation(number, image_id, box):
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
