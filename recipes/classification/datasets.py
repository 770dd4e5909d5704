"""Datasets of labeled images by name, with random access to every example.

To add a dataset, add a function that returns its `Source` to `DATASETS`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np
from etils import epy

from recipes.config.setting import setting

# Reading the settings does not load TensorFlow.
with epy.lazy_imports():
    import tensorflow as tf

    from keras_norm import errors
    from recipes.data import image_files
    from recipes.data import image_folder
    from recipes.data import tfds_reader

NUM_FAKE = 4096


@dataclasses.dataclass(frozen=True)
class Split:
    """Training or evaluation examples of a dataset.

    Attributes:
        num_examples: Number of examples.
        read: `f(index)` returns the image and label of an example in a graph.
            `index` is an int64 tensor. An image is uint8 `(height, width,
            channels)`, or the bytes of a JPEG, PNG, GIF, BMP or WebP file. The
            bytes are empty if the file cannot be read.
        name: `f(index)` describes an example for error messages.
        path: `f(index)` returns the file of an example; None if images are not
            files. Images in files are rotated by their EXIF orientation.
    """

    num_examples: int
    read: Callable
    name: Callable
    path: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Classification dataset.

    Attributes:
        class_names: Name of each label.
        num_channels: Channels of an image, 1 or 3.
        train: Training examples.
        evaluation: Evaluation examples.
        augmentation: Augmentation that `--augmentation=auto` selects.
        notes: Notes about ignored files.
    """

    class_names: tuple
    num_channels: int
    train: Split
    evaluation: Split
    augmentation: str
    notes: tuple = ()

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Dataset that is not from TFDS.

    Attributes:
        open: `f(config)` returns a `Source`.
        description: Noun phrase for `--help`.
    """

    open: Callable
    description: str


def open_source(config):
    """Opens the dataset `config.dataset`.

    Returns:
        A `Source`.

    Raises:
        RecipeError: If the dataset does not exist or cannot be read.
    """
    return find_dataset(config)(config)


def find_dataset(config):
    """Returns `f(config)`, which opens the dataset `config.dataset`.

    Raises:
        RecipeError: If the dataset is unknown.
    """
    name, has_path, _ = config.dataset.partition(":")
    own = DATASETS.get(f"{name}:PATH" if has_path else name)
    if own is not None:
        return own.open
    builder = tfds_reader.find_builder(
        config, tuple(DATASETS), tfds_reader.POPULAR_DATASETS
    )
    return functools.partial(_open_builder, builder)


def _open_builder(builder, config):
    arguments = tfds_reader.open_classification_builder(builder, config)
    for split in ("train", "evaluation"):
        arguments[split] = Split(**arguments[split])
    return Source(**arguments)


def make_file_split(paths, labels):
    """Returns a `Split` of image files.

    Args:
        paths: List of paths.
        labels: int64 array with the label of each file.
    """
    split = _make_split(
        ([os.fsencode(path) for path in paths], labels),
        lambda path, label: (image_files.read_bytes(path), label),
        lambda i: errors.printable(paths[i]),
    )
    return dataclasses.replace(split, path=lambda i: paths[i])


def _make_split(columns, read_row, name):
    """Returns a `Split` of columns in memory.

    Args:
        columns: Arrays or lists of equal length.
        read_row: `f(*values)` returns the image and label of one row.
        name: `f(index)`, see `Split`.
    """
    tensors = [tf.constant(column) for column in columns]
    return Split(
        num_examples=len(columns[0]),
        read=lambda i: read_row(*[tf.gather(tensor, i) for tensor in tensors]),
        name=name,
    )


def _open_digits(config):
    """Opens 8x8 gray digits; a fifth of each class is for evaluation."""
    del config
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train_images, eval_images, train_labels, eval_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )

    def make_split(name, *columns):
        return _make_split(
            columns,
            lambda image, label: (image, label),
            f"example {{}} of {name}".format,
        )

    return Source(
        train=make_split("train", train_images, train_labels),
        evaluation=make_split("evaluation", eval_images, eval_labels),
        class_names=tuple(map(str, digits.target_names)),
        num_channels=1,
        augmentation="crop",
    )


def _open_fake(config):
    """Creates noise of the size of ImageNet's input."""
    generator = np.random.default_rng(config.seed)
    shape = (16, config.image_size, config.image_size, 3)
    noise = tf.constant(generator.integers(0, 256, shape, np.uint8))
    labels = generator.integers(0, 1000, NUM_FAKE)
    columns = (np.arange(NUM_FAKE) % 16, labels)

    def make_split(num_examples):
        return _make_split(
            [column[:num_examples] for column in columns],
            lambda which, label: (noise[which], label),
            "example {}".format,
        )

    return Source(
        train=make_split(NUM_FAKE),
        evaluation=make_split(NUM_FAKE // 4),
        class_names=tuple(map(str, range(1000))),
        num_channels=3,
        augmentation="none",
    )


def _open_folder(config):
    """Opens a folder of image files, see `image_folder`."""
    path = config.dataset.partition(":")[2]
    labels, *splits, notes = image_folder.read_labeled_folder(
        pathlib.Path(path).expanduser()
    )
    train, evaluation = (make_file_split(*split) for split in splits)
    return Source(
        class_names=tuple(map(errors.printable, labels)),
        num_channels=3,
        train=train,
        evaluation=evaluation,
        augmentation="inception",
        notes=tuple(notes),
    )


DATASETS = {
    "digits": Dataset(_open_digits, "handwritten digits of scikit-learn"),
    "fake": Dataset(_open_fake, "noise for measuring speed"),
    "folder:PATH": Dataset(
        _open_folder,
        "JPEG, PNG, GIF, BMP and WebP files PATH/train/<label>/* and "
        "PATH/validation/<label>/*, read as by "
        "keras.utils.image_dataset_from_directory and rotated by EXIF",
    ),
}


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """Dataset by name"""

    dataset: str = setting(
        "imagenet2012",
        "Name of an image classification dataset of TFDS, or one of: "
        + "; ".join(f"{k} ({v.description})" for k, v in DATASETS.items())
        + ".",
    )
