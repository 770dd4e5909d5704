"""Reads a folder of images with annotations in COCO's format.

The folder has the layout of COCO's archives,

  annotations/instances_train2017.json   annotations/instances_val2017.json
  train2017/*.jpg                        val2017/*.jpg

(or with the images in images/train2017 and images/val2017, or all in images),
or of a Roboflow export:

  train/_annotations.coco.json           valid/_annotations.coco.json
  train/*.jpg                            valid/*.jpg
"""

import functools
import os

import numpy as np
import tensorflow as tf
from absl import logging

from keras_norm.errors import printable
from recipes.data import image_files
from recipes.data import image_folder
from recipes.data.ignored_files import join_names
from recipes.detection.datasets import coco_json
from recipes.detection.datasets import image_sizes
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split
from recipes.errors import RecipeError

# Name of an annotation file in a Roboflow export.
ROBOFLOW = "_annotations.coco.json"
EVAL_FOLDERS = ("valid", "val", "validation", "test")
LAYOUTS = (
    "annotations/instances_train*.json and annotations/instances_val*.json "
    f"with the images in train*/ and val*/, or train/{ROBOFLOW} and valid/"
    f"{ROBOFLOW} with the images next to them"
)
# Number of names in a message.
NUM_LISTED = 8


def open_folder(root, skips=False):
    """Opens a folder as a dataset.

    Args:
        root: Path of the folder.
        skips: Whether the run skips images whose size differs from their
            annotation. They are then only an error here if no image is left.

    Returns:
        A `Source`.

    Raises:
        RecipeError: if a file cannot be read, is missing, or has invalid or
            contradictory entries.
    """
    files = _find_files(root)
    contents = [coco_json.load(path) for path, _ in files]
    train, evaluation = (categories for categories, _, _ in contents)
    if train != evaluation:
        differing = sorted(train.items() ^ evaluation.items())
        names = [f"{number} {name!r}" for number, name in differing]
        raise RecipeError(
            f"{files[0][0]} and {files[1][0]} must have the same categories. "
            f"They differ in {join_names(names, NUM_LISTED)}."
        )
    splits, all_images = [], []
    list_folder = functools.cache(_list_folder)
    for (path, folders), (_, names, annotations) in zip(
        files, contents, strict=True
    ):
        if all(np.all(each.is_crowd) for each in annotations):
            raise RecipeError(
                f"{path} has no box of a single object, which training and "
                "evaluation need."
            )
        images = _find_images(path, [*folders, root], names, list_folder)
        image_sizes.check_sizes(path, images, annotations, skips)
        splits.append(_make_split(images, annotations))
        all_images += images
    _warn_of_unread_images(root, all_images, list_folder)
    _warn_of_unread_splits(root, files)
    return Source(
        class_names=tuple(train.values()),
        category_ids=tuple(train),
        train=splits[0],
        evaluation=splits[1],
    )


def _find_files(root):
    """Returns `(annotation file, image folders)` of training and evaluation."""
    if not root.is_dir():
        raise RecipeError(
            f"--dataset=folder:{root}: the folder does not exist. It must "
            f"contain {LAYOUTS}."
        )
    files = [_find_coco_file(root, split) for split in ("train", "val")]
    if not any(files):
        files = [
            _find_roboflow_file(root, ("train",)),
            _find_roboflow_file(root, EVAL_FOLDERS),
        ]
    if not all(files):
        names = sorted(path.name for path in root.iterdir())
        found = join_names(names, NUM_LISTED) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must contain {LAYOUTS}. It "
            f"contains: {found}."
        )
    return files


def _find_coco_file(root, split):
    paths = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if len(paths) > 1:
        raise RecipeError(
            f"--dataset=folder:{root} must contain only one file "
            f"annotations/instances_{split}*.json. It contains "
            f"{', '.join(path.name for path in paths)}."
        )
    for path in paths:
        name = path.stem.removeprefix("instances_")
        images = root / "images"
        return path, [root / name, images / name, images]


def _find_roboflow_file(root, folders):
    for folder in folders:
        path = root / folder / ROBOFLOW
        if path.is_file():
            return path, [path.parent]


def _list_folder(folder):
    """Returns the file names in a folder; asking for each file is slow."""
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        # No pipes: reading one would block.
        return frozenset(
            entry.name
            for entry in entries
            if entry.is_symlink() or entry.is_file(follow_symlinks=False)
        )


def _find_images(path, folders, names, list_folder):
    """Returns the images' paths in the folder that contains the first one."""
    candidates = [
        f for f in folders if os.path.isfile(os.path.join(f, names[0]))
    ]
    folder = (candidates or [f for f in folders if f.is_dir()] or folders)[0]
    images = [os.path.join(folder, name) for name in names]
    missing = [
        image
        for image in images
        if os.path.basename(image) not in list_folder(os.path.dirname(image))
    ]
    if missing:
        more = f" and {len(missing) - 1} more of {len(images)}"
        raise RecipeError(
            f"{path} lists images that do not exist: {missing[0]}"
            f"{more * (len(missing) > 1)}."
        )
    return images


def _warn_of_unread_images(root, images, list_folder):
    """Logs the images that no annotation file lists."""
    read = {}
    for image in map(os.path.normpath, images):
        read.setdefault(os.path.dirname(image), set()).add(image)
    unread = [
        image
        for parent in sorted(read)
        for image in image_folder.list_images(parent, list_folder(parent))
        if image not in read[parent]
    ]
    if unread:
        logging.warning(
            "folder:%s: %d images are not listed in the annotations and are "
            "not used. The first is %s.",
            root,
            len(unread),
            printable(unread[0]),
        )


def _warn_of_unread_splits(root, files):
    read = {path.parent.name for path, _ in files}
    folders = sorted({"train", *EVAL_FOLDERS} - read)
    unread = [name for name in folders if (root / name / ROBOFLOW).is_file()]
    if unread:
        logging.warning(
            "folder:%s: splits that are not used: %s.",
            root,
            ", ".join(f"{name}/" for name in unread),
        )


def _make_split(images, annotations):
    """Returns the `Split` of images, given by their paths."""
    paths = tf.constant([os.fsencode(image) for image in images])
    sizes = np.array([[a.height, a.width] for a in annotations], np.int64)
    counts = [len(a.labels) for a in annotations]
    offsets = tf.constant(np.cumsum([0, *counts]), tf.int64)
    boxes = np.concatenate([a.boxes for a in annotations])
    columns = {
        "boxes": tf.constant(
            boxes / np.tile(sizes, 2).repeat(counts, axis=0), tf.float32
        ),
        "labels": tf.constant(np.concatenate([a.labels for a in annotations])),
        "is_crowd": tf.constant(
            np.concatenate([a.is_crowd for a in annotations])
        ),
    }
    sizes = tf.constant(sizes)

    def read(i):
        begin, end = offsets[i], offsets[i + 1]
        objects = {key: column[begin:end] for key, column in columns.items()}
        return {
            "image": image_files.read_bytes(paths[i]),
            "size": sizes[i],
            **objects,
        }

    return Split(
        num_examples=len(images),
        read=read,
        name=lambda i: printable(images[i]),
        path=lambda i: images[i],
        annotations=lambda: annotations,
    )
