"""Tiles of aerial photos with boxes around trees: --dataset=trees.

Real and small: one photo is for training, three photos of other places are for
evaluation, so that a good score there would mean that what was learned holds
elsewhere. With a single photo to learn from, it does not go far.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

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
# A box belongs to a tile that holds at least this share of its area.
MIN_INSIDE = 0.5


def open_trees(data_dir=None):
    """The source, whose files are made where they are not there yet.

    Args:
        data_dir: Path of the folder in which there is a folder `tree_tiles`, or
            in which it is made; None for that of TFDS.

    Raises:
        RecipeError: if the photos cannot be had, or the folder not written.
    """
    data_dir = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR)
    root = data_dir.expanduser() / FOLDER
    if not root.exists():
        _make(root)
    return coco_folder.open_folder(root)


def tiles(photo, boxes):
    """The whole tiles of a photo; what is left at its right and bottom is not.

    Args:
        photo: uint8 `(height, width, 3)`.
        boxes: Rows of left, top, right, bottom, in pixels.

    Yields:
        `(top, left, pixels, inside)`, where `inside` is float64 `(n, 4)`: the
        boxes of the tile, left, top, right, bottom, clipped to it and in its
        own pixels.
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


def _make(root):
    """Makes the folder, whole or not at all."""
    print(
        f"fetching {deepforest_photos.PACKAGE}'s photos of trees (21 MB) to "
        f"{root}"
    )
    with contextlib.ExitStack() as stack:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            partial = tempfile.mkdtemp(
                prefix=f"partial-{FOLDER}-", dir=root.parent
            )
            stack.callback(shutil.rmtree, partial, ignore_errors=True)
            wheel = stack.enter_context(
                deepforest_photos.open_wheel(root.parent)
            )
            archive = stack.enter_context(zipfile.ZipFile(wheel))
            made = pathlib.Path(partial) / FOLDER
            _write(archive, made)
            # Another run may have been faster.
            if not root.exists():
                os.rename(made, root)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise RecipeError(
                f"--dataset=trees cannot be made in {root}: {error}. Another "
                "--data_dir may do."
            ) from error


def _write(archive, root):
    """The tiles, as PNG files, and their boxes, as COCO lays them out."""
    (root / "annotations").mkdir(parents=True)
    for split, photos in PHOTOS.items():
        (root / split).mkdir()
        images, annotations = [], []
        for name in photos:
            photo, boxes = deepforest_photos.read_photo(archive, name)
            for top, left, pixels, inside in tiles(photo, boxes):
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
        with_trees = len({row["image_id"] for row in annotations})
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
