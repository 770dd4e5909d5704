"""Labelled images by the name of a dataset, every example by its number."""

import dataclasses
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes.data import image_files
from recipes.data import image_folder
from recipes.data import tfds_reader

NUM_FAKE = 4096


@dataclasses.dataclass(frozen=True)
class Split:
    """The training or the evaluation examples of a set.

    Attributes:
        num_examples: How many there are.
        read: `f(index)` gives image and label of an example in a graph, where
            `index` is an int64 tensor. An image is uint8 `(height, width,
            channels)`, or the bytes of a JPEG, PNG, GIF, BMP or WebP file; none
            of one that cannot be read.
        name: `f(index)` tells a person which example that is, and where.
        path: `f(index)` gives the path of the file that an image is; None
            where it is none. Files are turned by their EXIF orientation.
    """

    num_examples: int
    read: Callable
    name: Callable
    path: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A classification set.

    Attributes:
        class_names: The name of each label.
        num_channels: Colors of an image, 1 or 3.
        train: The training examples.
        evaluation: The evaluation examples.
        augmentation: What suits these images, see `augment`.
        notes: What else there is to say of what was found.
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


def open_source(config):
    """The source that `config.dataset` names.

    Raises:
        RecipeError: if there is no such dataset, or it cannot be had.
    """
    kind, _, path = config.dataset.partition(":")
    if kind == "folder":
        return _folder(pathlib.Path(path).expanduser())
    if config.dataset == "digits":
        return _digits()
    if config.dataset == "fake":
        return _fake(config)
    found = tfds_reader.open_classification_builder(config)
    splits = {key: Split(**found.pop(key)) for key in ("train", "evaluation")}
    return Source(**splits, **found)


def _in_memory(columns, fetch, name):
    """A split of columns of equal length: `fetch(*row)` gives an example."""
    tensors = [tf.constant(column) for column in columns]
    return Split(
        num_examples=len(columns[0]),
        read=lambda i: fetch(*[tf.gather(tensor, i) for tensor in tensors]),
        name=name,
    )


def _digits():
    """Handwritten digits, 8x8 grey; every fifth of a class is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train_images, eval_images, train_labels, eval_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=0
    )

    def split(name, *columns):
        return _in_memory(
            columns,
            lambda image, label: (image, label),
            f"example {{}} of {name}".format,
        )

    return Source(
        train=split("train", train_images, train_labels),
        evaluation=split("evaluation", eval_images, eval_labels),
        class_names=tuple(map(str, digits.target_names)),
        num_channels=1,
        augmentation="crop",
    )


def _fake(config):
    """Noise at the size of ImageNet's input: for timing, not for learning."""
    generator = np.random.default_rng(config.seed)
    shape = (16, config.image_size, config.image_size, 3)
    noise = tf.constant(generator.integers(0, 256, shape, np.uint8))
    labels = generator.integers(0, 1000, NUM_FAKE)
    columns = (np.arange(NUM_FAKE) % 16, labels)

    def split(num_examples):
        return _in_memory(
            [column[:num_examples] for column in columns],
            lambda which, label: (noise[which], label),
            "example {}".format,
        )

    return Source(
        train=split(NUM_FAKE),
        evaluation=split(NUM_FAKE // 4),
        class_names=tuple(map(str, range(1000))),
        num_channels=3,
        augmentation="none",
    )


def _folder(root):
    """Image files below split/label/, see `image_folder`."""
    labels, *splits, notes = image_folder.read_labeled_folder(root)
    train, evaluation = (make_file_split(*split) for split in splits)
    return Source(
        class_names=tuple(map(image_folder.printable, labels)),
        num_channels=3,
        train=train,
        evaluation=evaluation,
        augmentation="inception",
        notes=tuple(notes),
    )


def make_file_split(paths, labels):
    """A split of image files.

    Args:
        paths: List of paths.
        labels: int64 array of a label for each.
    """
    split = _in_memory(
        ([os.fsencode(path) for path in paths], labels),
        lambda path, label: (image_files.read_bytes(path), label),
        lambda i: image_folder.printable(paths[i]),
    )
    return dataclasses.replace(split, path=lambda i: paths[i])
