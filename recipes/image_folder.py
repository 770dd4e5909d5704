"""A folder of images below split/label/, as Keras reads it.

Classes, files and labels are those of
`keras.utils.image_dataset_from_directory`, but for what programs leave behind:
hidden files and folders, such as .ipynb_checkpoints and ._x.jpg, and __MACOSX.
These, and everything else that is not read, are named with their number.
"""

import collections
import os

import numpy as np
from absl import logging

from recipes.errors import RecipeError

# Those of Keras.
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
EVAL_SPLITS = ("validation", "valid", "val", "test")
MACOS_FOLDER = "__MACOSX"
# Names and endings that a line lists.
NUM_LISTED = 20


def is_left_behind(name):
    """Whether a file or folder of that name is no part of a dataset."""
    return name.startswith(".") or name == MACOS_FOLDER


def is_image(name):
    """Whether a file of that name is read as an image."""
    return name.lower().endswith(IMAGE_ENDINGS) and not is_left_behind(name)


def images_of(folder, names):
    """The sorted paths of the images among the names in a folder."""
    return [
        os.path.join(folder, name) for name in sorted(filter(is_image, names))
    ]


def printable(path):
    """A path as text, whatever bytes its name has."""
    return os.fsencode(path).decode("utf-8", "replace")


def read(root):
    """The images of a folder.

    Args:
        root: Path of the folder.

    Returns:
        `(labels, train, evaluation)`: the sorted names of the classes and, of
        each split, a list of paths and an int64 array of label indices.

    Raises:
        RecipeError: if there is no such folder, it does not hold both splits,
            or a split holds no image or other labels than training.
    """
    roots = _split_roots(root)
    unread = collections.Counter()
    for folder in _folders(root, unread):
        if root / folder not in roots:
            unread[f"{folder}/"] += 1
    labels, eval_labels = (_folders(split, unread) for split in roots)
    unknown = sorted(set(eval_labels) - set(labels))
    if unknown:
        raise RecipeError(
            f"{roots[1]} holds labels that train/ does not: "
            f"{', '.join(unknown)}."
        )
    splits = [_list_images(split, labels, unread) for split in roots]
    _warn(root, labels, dict(zip(roots, splits, strict=True)), unread)
    return labels, *splits


def _split_roots(root):
    """The folders of the training and the evaluation images."""
    if not root.is_dir():
        raise RecipeError(
            f"--dataset=folder:{root}: there is no such folder. It must hold "
            "train/<label>/*.jpg and validation/<label>/*.jpg."
        )
    train = root / "train"
    evaluation = next(
        (root / name for name in EVAL_SPLITS if (root / name).is_dir()), None
    )
    if not train.is_dir() or evaluation is None:
        there = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must hold train/ and one of "
            f"{', '.join(f'{s}/' for s in EVAL_SPLITS)}. It holds: {there}."
        )
    return train, evaluation


def _folders(root, unread):
    """Names of the folders in a folder; counts what else it holds."""
    names = []
    for entry in _scan(root):
        if entry.is_dir() and not is_left_behind(entry.name):
            names.append(entry.name)
        elif is_image(entry.name):
            unread["images outside of the class folders"] += 1
        else:
            unread[_kind(entry)] += 1
    return names


def _list_images(root, labels, unread):
    """Paths and label indices of the images below `root/<label>/`."""
    paths, indices = [], []
    for index, label in enumerate(labels):
        found = _walk(root / label, unread) if (root / label).is_dir() else []
        paths += found
        indices += [index] * len(found)
    if not paths:
        raise RecipeError(
            f"{root} holds no image: <label>/*{', *'.join(IMAGE_ENDINGS)}."
        )
    return paths, np.array(indices, np.int64)


def _walk(folder, unread):
    """The images in a folder and below it, in the order of Keras."""
    images, folders = {}, [os.fspath(folder)]
    while folders:
        parent = folders.pop()
        images[parent] = []
        for entry in _scan(parent):
            if is_left_behind(entry.name):
                unread[_kind(entry)] += 1
            elif entry.is_dir():
                # As Keras does, which would not end in a circle of them.
                if entry.is_symlink():
                    unread["links to folders"] += 1
                else:
                    folders.append(entry.path)
            elif not is_image(entry.name):
                unread[_kind(entry)] += 1
            elif entry.is_file():
                images[parent].append(entry.path)
            else:
                unread["broken links"] += 1
    return [path for parent in sorted(images) for path in images[parent]]


def _scan(folder):
    """The entries of a folder by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RecipeError(
            f"{folder} cannot be listed: {error.strerror}."
        ) from error


def _kind(entry):
    """How a file or folder is counted that is not read."""
    if entry.is_dir():
        return f"{entry.name}/"
    if entry.name.startswith("."):
        return "._*" if entry.name.startswith("._") else ".*"
    ending = os.path.splitext(entry.name)[1].lower()
    return f"*{ending}" if ending else "files without an ending"


def _warn(root, labels, splits, unread):
    """Says in a line what is not read, and which classes have no image."""
    parts = []
    if unread:
        counts = [f"{count} {kind}" for kind, count in unread.most_common()]
        parts.append(f"not read: {_listed(counts)}")
    for split, (_, indices) in splits.items():
        counts = np.bincount(indices, minlength=len(labels))
        empty = [labels[i] for i in np.flatnonzero(counts == 0)]
        if empty:
            parts.append(
                f"{split.name}/ has no image of {len(empty)} of {len(labels)} "
                f"classes: {_listed(empty)}"
            )
    if parts:
        logging.warning("folder:%s: %s.", root, "; ".join(parts))


def _listed(names):
    """Up to some names, for a sentence."""
    more = len(names) - NUM_LISTED
    return ", ".join(names[:NUM_LISTED]) + (f" and {more} more" * (more > 0))
