"""Labelled images by the name of a dataset, in an order set by a seed."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes import tfds_source
from recipes.errors import RecipeError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
EVAL_SPLITS = ("validation", "val", "test")
NUM_FAKE = 4096


@dataclasses.dataclass(frozen=True)
class Source:
    """A classification set.

    Attributes:
        num_classes: Number of classes.
        num_channels: Colours of an image, 1 or 3.
        num_train: Number of training examples.
        num_eval: Number of evaluation examples.
        train: `f(seed, epoch)` gives pairs of image and label in the order of
            that epoch, a pure function of both. An image is uint8
            `(height, width, channels)`, or the bytes of a JPEG or PNG file.
        evaluation: `f()` gives the evaluation pairs.
        augmentation: What suits these images, see `augment`.
    """

    num_classes: int
    num_channels: int
    num_train: int
    num_eval: int
    train: Callable
    evaluation: Callable
    augmentation: str


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
    return Source(**tfds_source.open_builder(config))


def shuffled_indices(num_examples, seed, epoch):
    """Every index once, in an order that is a function of seed and epoch."""
    key = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    last = tf.constant(num_examples - 1, tf.int64)
    return tf.data.Dataset.range(num_examples).map(
        lambda i: tf.random.experimental.index_shuffle(i, key, last)
    )


def _indexed(train, evaluation, fetch, **description):
    """A source whose examples can be had by index: `fetch(*columns)`."""

    def in_order(columns, indices):
        tensors = [tf.constant(column) for column in columns]
        return indices.map(
            lambda i: fetch(*[tf.gather(t, i) for t in tensors]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    num_train, num_eval = len(train[0]), len(evaluation[0])
    return Source(
        num_train=num_train,
        num_eval=num_eval,
        train=lambda seed, epoch: in_order(
            train, shuffled_indices(num_train, seed, epoch)
        ),
        evaluation=lambda: in_order(
            evaluation, tf.data.Dataset.range(num_eval)
        ),
        **description,
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
    return _indexed(
        (train_images, train_labels),
        (eval_images, eval_labels),
        lambda image, label: (image, label),
        num_classes=10,
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
    return _indexed(
        columns,
        tuple(column[: NUM_FAKE // 4] for column in columns),
        lambda which, label: (noise[which], label),
        num_classes=1000,
        num_channels=3,
        augmentation="none",
    )


def _folder(root):
    """Image files below split/label/."""
    if not root.is_dir():
        raise RecipeError(
            f"--dataset=folder:{root}: there is no such folder. It must hold "
            "train/<label>/*.jpg and validation/<label>/*.jpg."
        )
    train_root = root / "train"
    eval_root = next(
        (root / split for split in EVAL_SPLITS if (root / split).is_dir()),
        None,
    )
    if not train_root.is_dir() or eval_root is None:
        there = ", ".join(sorted(p.name for p in root.iterdir())) or "nothing"
        raise RecipeError(
            f"--dataset=folder:{root} must hold train/ and one of "
            f"{', '.join(f'{s}/' for s in EVAL_SPLITS)}. It holds: {there}."
        )
    labels = sorted(p.name for p in train_root.iterdir() if p.is_dir())
    return _indexed(
        _list_images(train_root, labels),
        _list_images(eval_root, labels),
        lambda path, label: (tf.io.read_file(path), label),
        num_classes=len(labels),
        num_channels=3,
        augmentation="inception",
    )


def _list_images(root, labels):
    """Paths and label indices of the images below `root/<label>/`."""
    unknown = {p.name for p in root.iterdir() if p.is_dir()} - set(labels)
    if unknown:
        raise RecipeError(
            f"{root} holds labels that train/ does not: "
            f"{', '.join(sorted(unknown))}."
        )
    paths, indices = [], []
    for index, label in enumerate(labels):
        for path in sorted((root / label).glob("*")):
            if path.suffix.lower() in IMAGE_ENDINGS:
                paths.append(str(path))
                indices.append(index)
    if not paths:
        raise RecipeError(
            f"{root} holds no image: <label>/*{', *'.join(IMAGE_ENDINGS)}."
        )
    return np.array(paths), np.array(indices, np.int64)
