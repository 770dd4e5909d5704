"""A folder of images below split/label/, as Keras reads it.

Classes, files and labels are those of
`keras.utils.image_dataset_from_directory`, with WebP besides, but for what
programs leave behind: hidden files and folders, such as .ipynb_checkpoints and
._x.jpg, and __MACOSX. These, and everything else that is not read, are counted.
"""

import os

import numpy as np

from recipes.data.ignored_files import IgnoredFiles
from recipes.data.ignored_files import is_file
from recipes.data.ignored_files import is_folder
from recipes.data.ignored_files import is_hidden
from recipes.data.ignored_files import join_names
from recipes.data.ignored_files import printable
from recipes.errors import RecipeError

# Those of Keras, and WebP.
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
EVAL_SPLITS = ("validation", "valid", "val", "test")
# Names that a line lists.
NUM_LISTED = 20


def is_image(name):
    """Whether a file of that name is read as an image."""
    return name.lower().endswith(IMAGE_ENDINGS) and not is_hidden(name)


def list_images(folder, names):
    """The sorted paths of the images among the names in a folder."""
    return [
        os.path.join(folder, name) for name in sorted(filter(is_image, names))
    ]


def read_labeled_folder(root):
    """The images of a folder.

    Args:
        root: Path of the folder.

    Returns:
        `(labels, train, evaluation, notes)`: the sorted names of the classes;
        of each split, a list of paths and an int64 array of label indices; and
        a list of what else there is to say.

    Raises:
        RecipeError: if there is no such folder, it does not hold both splits,
            or a split holds no image or other labels than training, or there
            is no training image of a class.
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
            f"{roots[1]} holds labels that train/ does not: "
            f"{', '.join(map(printable, unknown))}."
        )
    splits = [_list_images(split, labels, ignored) for split in roots]
    without = [_without_images(labels, indices) for _, indices in splits]
    if without[0]:
        raise RecipeError(
            f"{roots[0]} has no image of {len(without[0])} of {len(labels)} "
            f"classes: {join_names(without[0], NUM_LISTED)}. Put images "
            "there or remove the folder."
        )
    notes = [ignored.describe()]
    if without[1]:
        notes.append(
            f"{roots[1].name}/ has no image of {len(without[1])} of "
            f"{len(labels)} classes: {join_names(without[1], NUM_LISTED)}"
        )
    return labels, *splits, [note for note in notes if note]


def find_images(root):
    """The paths of the images in a folder and below it, and a note.

    Raises:
        RecipeError: if a folder cannot be listed.
    """
    ignored = IgnoredFiles(root)
    return _walk(root, ignored), ignored.describe()


def _without_images(labels, indices):
    counts = np.bincount(indices, minlength=len(labels))
    return [printable(labels[i]) for i in np.flatnonzero(counts == 0)]


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
        names = sorted(printable(entry.name) for entry in _scan(root))
        there = join_names(names, NUM_LISTED) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must hold train/ and one of "
            f"{', '.join(f'{s}/' for s in EVAL_SPLITS)}. It holds: {there}."
        )
    return train, evaluation


def _classes(root, ignored):
    """Names of the folders of a split; counts what else it holds."""
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
    is_loose = is_image(entry.name) and is_file(entry)
    ignored.add(
        entry, "images outside of the class folders" if is_loose else None
    )


def _list_images(root, labels, ignored):
    """Paths and label indices of the images below `root/<label>/`."""
    paths, indices = [], []
    for index, label in enumerate(labels):
        found = _walk(root / label, ignored) if (root / label).is_dir() else []
        paths += found
        indices += [index] * len(found)
    if not paths:
        raise RecipeError(
            f"{root} holds no image: <label>/*{', *'.join(IMAGE_ENDINGS)}."
        )
    return paths, np.array(indices, np.int64)


def _walk(folder, ignored):
    """The images in a folder and below it, in the order of Keras."""
    images, folders = {}, [os.fspath(folder)]
    while folders:
        parent = folders.pop()
        images[parent] = []
        for entry in _scan(parent):
            if is_hidden(entry.name):
                ignored.add(entry)
            elif is_folder(entry):
                # As Keras does, which would not end in a circle of them.
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
    """The entries of a folder by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise RecipeError(
            f"{printable(folder)} cannot be listed: {error.strerror}."
        ) from error
