"""A folder of images with annotations in COCO's format.

Either as COCO's own archives unpack,

  annotations/instances_train2017.json   annotations/instances_val2017.json
  train2017/*.jpg                        val2017/*.jpg

(or with the images in images/train2017 and images/val2017, or all in images),
or as Roboflow writes it:

  train/_annotations.coco.json           valid/_annotations.coco.json
  train/*.jpg                            valid/*.jpg
"""

import functools
import os

import numpy as np
import tensorflow as tf
from absl import logging

from recipes.data import image_files
from recipes.data import image_folder
from recipes.detection.datasets import coco_json
from recipes.detection.datasets import image_sizes
from recipes.detection.datasets.annotations import Annotation
from recipes.detection.datasets.annotations import Source
from recipes.detection.datasets.annotations import Split
from recipes.errors import RecipeError

ROBOFLOW = "_annotations.coco.json"
EVAL_FOLDERS = ("valid", "val", "validation", "test")


def open_folder(root, skips=False):
    """The source that a folder holds.

    Args:
        root: Path of the folder.
        skips: Whether single images of another size than annotated may be left
            out when they are read, by the sizes that `Split.read` gives.

    Raises:
        RecipeError: if it cannot be read, is incomplete, or contradicts itself.
    """
    files = _files(root)
    parts = [coco_json.load(path) for path, _ in files]
    train, evaluation = (part.categories for part in parts)
    if train != evaluation:
        differing = sorted(train.items() ^ evaluation.items())
        names = _first(f"{number} {name!r}" for number, name in differing)
        raise RecipeError(
            f"{files[0][0]} and {files[1][0]} must name the same categories. "
            f"They differ in {names}."
        )
    splits, read = [], []
    list_folder = functools.cache(_list_folder)
    for (path, folders), columns in zip(files, parts, strict=True):
        if np.all(columns.is_crowd):
            raise RecipeError(
                f"{path} has no box of a single object: there is nothing to "
                "learn from, or to evaluate on."
            )
        folders = [*folders, root]
        images = _images(path, folders, columns.file_names, list_folder)
        image_sizes.check(path, images, columns, skips)
        splits.append(_split(images, columns))
        read += images
    _warn_of_unread(root, read, list_folder)
    _warn_of_unread_splits(root, files)
    return Source(
        class_names=tuple(train.values()),
        category_ids=tuple(train),
        train=splits[0],
        evaluation=splits[1],
    )


def _files(root):
    """For training and evaluation: the annotations, where images may be."""
    if not root.is_dir():
        raise RecipeError(
            f"--dataset=folder:{root}: there is no such folder. It must hold "
            f"{_wanted()}."
        )
    found = [_coco(root, kind) for kind in ("train", "val")]
    if not any(found):
        found = [_roboflow(root, ("train",)), _roboflow(root, EVAL_FOLDERS)]
    if not all(found):
        there = _first(sorted(p.name for p in root.iterdir())) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must hold {_wanted()}. It holds: {there}."
        )
    return found


def _wanted():
    return (
        "annotations/instances_train*.json and annotations/instances_val*.json "
        f"with the images in train*/ and val*/, or train/{ROBOFLOW} and valid/"
        f"{ROBOFLOW} with the images beside them"
    )


def _coco(root, kind):
    paths = sorted((root / "annotations").glob(f"instances_{kind}*.json"))
    if len(paths) > 1:
        raise RecipeError(
            f"--dataset=folder:{root} must hold one file of the name "
            f"annotations/instances_{kind}*.json. It holds "
            f"{', '.join(path.name for path in paths)}."
        )
    for path in paths:
        name = path.stem.removeprefix("instances_")
        images = root / "images"
        return path, [root / name, images / name, images]


def _roboflow(root, folders):
    for folder in folders:
        path = root / folder / ROBOFLOW
        if path.is_file():
            return path, [path.parent]


def _list_folder(folder):
    """Names in a folder. It is listed once: asking for each file is slow."""
    if not os.path.isdir(folder):
        return frozenset()
    with os.scandir(folder) as entries:
        # A pipe would be waited for.
        return frozenset(
            entry.name
            for entry in entries
            if entry.is_symlink() or entry.is_file(follow_symlinks=False)
        )


def _images(path, folders, names, list_folder):
    """The paths of the images, in the folder that has the first of them."""
    there = [f for f in folders if os.path.isfile(os.path.join(f, names[0]))]
    folder = (there or [f for f in folders if f.is_dir()] or folders)[0]
    images = [os.path.join(folder, name) for name in names]
    missing = [
        image
        for image in images
        if os.path.basename(image) not in list_folder(os.path.dirname(image))
    ]
    if missing:
        more = len(missing) - 1
        raise RecipeError(
            f"{path} names images that are not there: {missing[0]}"
            + (f" and {more} more of {len(images)}." if more else ".")
        )
    return images


def _warn_of_unread(root, images, list_folder):
    """Names images beside those of the annotations, which no file lists."""
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
            "folder:%s: not read, as no annotations list them: %d images, the "
            "first is %s.",
            root,
            len(unread),
            image_folder.printable(unread[0]),
        )


def _warn_of_unread_splits(root, files):
    read = {path.parent.name for path, _ in files}
    folders = sorted({"train", *EVAL_FOLDERS} - read)
    unread = [name for name in folders if (root / name / ROBOFLOW).is_file()]
    if unread:
        logging.warning(
            "folder:%s: not read: %s.", root, ", ".join(f"{n}/" for n in unread)
        )


def _split(images, columns):
    paths = tf.constant([os.fsencode(image) for image in images])
    offsets = tf.constant(columns.offsets)
    scales = np.tile(columns.sizes, 2).repeat(np.diff(columns.offsets), axis=0)
    rows = {
        "boxes": tf.constant(columns.boxes / scales, tf.float32),
        "labels": tf.constant(columns.labels),
        "is_crowd": tf.constant(columns.is_crowd),
    }
    sizes = tf.constant(columns.sizes)

    def read(i):
        begin, end = offsets[i], offsets[i + 1]
        own = {key: column[begin:end] for key, column in rows.items()}
        return {
            "image": image_files.read_bytes(paths[i]),
            "size": sizes[i],
            **own,
        }

    return Split(
        num_examples=len(images),
        read=read,
        name=lambda i: image_folder.printable(images[i]),
        path=lambda i: images[i],
        annotations=functools.cache(
            lambda: [_annotation(columns, i) for i in range(len(images))]
        ),
    )


def _annotation(columns, i):
    height, width = columns.sizes[i]
    own = slice(columns.offsets[i], columns.offsets[i + 1])
    return Annotation(
        image_id=int(columns.image_ids[i]),
        height=int(height),
        width=int(width),
        boxes=columns.boxes[own],
        labels=columns.labels[own],
        is_crowd=columns.is_crowd[own],
        areas=columns.areas[own],
    )


def _first(names, limit=8):
    """Up to some names, for a sentence."""
    names = list(names)
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return ", ".join(names[:limit] + more)
