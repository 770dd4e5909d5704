"""Lists folders of labeled images `split/label/`, as Keras does.

Classes, files and labels are the same as with
`keras.utils.image_dataset_from_directory`, plus WebP files. Hidden files and
folders of other programs, such as .ipynb_checkpoints, ._x.jpg and __MACOSX, are
ignored. Everything that is ignored is counted.
"""

import os

import numpy as np

from keras_norm.errors import printable
from recipes.data.ignored_files import IgnoredFiles
from recipes.data.ignored_files import is_file
from recipes.data.ignored_files import is_folder
from recipes.data.ignored_files import is_hidden
from recipes.data.ignored_files import join_names
from recipes.errors import RecipeError

# The extensions that Keras reads, and WebP.
IMAGE_EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
EVAL_SPLITS = ("validation", "valid", "val", "test")
# Number of names in a message.
NUM_LISTED = 20


def is_image(name):
    """Returns True if a file of this name is read as an image."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not is_hidden(name)


def list_images(folder, names):
    """Returns the sorted paths of the images among a folder's file names."""
    return [
        os.path.join(folder, name) for name in sorted(filter(is_image, names))
    ]


def read_labeled_folder(root):
    """Lists the training and evaluation images of a folder.

    Args:
        root: Path of the folder.

    Returns:
        `(labels, train, evaluation, notes)`. `labels` are the sorted class
        names; `train` and `evaluation` are pairs of a list of paths and an
        int64 array of label indices; `notes` is a list of strings.

    Raises:
        RecipeError: If the folder or a split does not exist, a split has no
            images, a class has no training images, or evaluation has a class
            that training does not have.
    """
    roots = _split_roots(root)
    ignored = IgnoredFiles(root)
    for entry in _scan(root):
        if not is_folder(entry):
            _ignore_file(entry, ignored)
        elif root / entry.name not in roots:
            ignored.add(entry)
    labels, eval_labels = (_classes(split, ignored) for split in roots)
    unknown = sorted(set(eval_labels) - set(labels))
    if unknown:
        raise RecipeError(
            f"{roots[1]} has labels that train/ does not have: "
            f"{', '.join(map(printable, unknown))}. Add training images or "
            "remove the folders."
        )
    splits = [_list_images(split, labels, ignored) for split in roots]
    empty = [_empty_classes(labels, indices) for _, indices in splits]
    if empty[0]:
        raise RecipeError(
            f"{roots[0]} has no images of {len(empty[0])} of {len(labels)} "
            f"classes: {join_names(empty[0], NUM_LISTED)}. Add images or "
            "remove the folders."
        )
    notes = [ignored.describe()]
    if empty[1]:
        notes.append(
            f"{roots[1].name}/ has no images of {len(empty[1])} of "
            f"{len(labels)} classes: {join_names(empty[1], NUM_LISTED)}"
        )
    return labels, *splits, [note for note in notes if note]


def find_images(root):
    """Finds the images in a folder and its subfolders.

    Returns:
        List of paths, and a note about ignored files, which may be empty.

    Raises:
        RecipeError: If a folder cannot be listed.
    """
    ignored = IgnoredFiles(root)
    return _walk(root, ignored), ignored.describe()


def _empty_classes(labels, indices):
    counts = np.bincount(indices, minlength=len(labels))
    return [printable(labels[i]) for i in np.flatnonzero(counts == 0)]


def _split_roots(root):
    """Returns the folders of the training and evaluation images."""
    if not root.is_dir():
        raise RecipeError(
            f"--dataset=folder:{root}: the folder does not exist. It must have "
            "train/<label>/*.jpg and validation/<label>/*.jpg."
        )
    train = root / "train"
    evaluation = next(
        (root / name for name in EVAL_SPLITS if (root / name).is_dir()), None
    )
    if not train.is_dir() or evaluation is None:
        names = sorted(printable(entry.name) for entry in _scan(root))
        content = join_names(names, NUM_LISTED) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must have train/ and one of "
            f"{', '.join(f'{s}/' for s in EVAL_SPLITS)}. It has: {content}."
        )
    return train, evaluation


def _classes(root, ignored):
    """Returns the class folders of a split; counts everything else."""
    names = []
    for entry in _scan(root):
        if not is_folder(entry):
            _ignore_file(entry, ignored)
        elif is_hidden(entry.name):
            ignored.add(entry)
        else:
            names.append(entry.name)
    return names


def _ignore_file(entry, ignored):
    is_unlabeled = is_image(entry.name) and is_file(entry)
    ignored.add(
        entry, "images outside the class folders" if is_unlabeled else None
    )


def _list_images(root, labels, ignored):
    """Returns paths and label indices of the images in `root/<label>/`."""
    paths, indices = [], []
    for index, label in enumerate(labels):
        found = _walk(root / label, ignored) if (root / label).is_dir() else []
        paths += found
        indices += [index] * len(found)
    if not paths:
        raise RecipeError(
            f"{root} has no images <label>/*{', *'.join(IMAGE_EXTENSIONS)}."
        )
    return paths, np.array(indices, np.int64)


def _walk(folder, ignored):
    """Returns the images in a folder and its subfolders in Keras' order."""
    images, folders = {}, [os.fspath(folder)]
    while folders:
        parent = folders.pop()
        images[parent] = []
        for entry in _scan(parent):
            if is_hidden(entry.name):
                ignored.add(entry)
            elif is_folder(entry):
                # Keras does not follow them either: they may be a cycle.
                if entry.is_symlink():
                    ignored.add(entry, "links to folders")
                else:
                    folders.append(entry.path)
            elif is_image(entry.name) and is_file(entry):
                images[parent].append(entry.path)
            else:
                ignored.add(entry)
    return [path for parent in sorted(images) for path in images[parent]]


def _scan(folder):
    """Returns the entries of a folder sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RecipeError(
            f"{printable(folder)} cannot be listed: {error.strerror}."
        ) from error
