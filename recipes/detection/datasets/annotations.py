"""Images and the boxes of the objects on them: what a set holds."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes.data import image_files


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The truth about one image, in NumPy.

    Attributes:
        image_id: As the set numbers it.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        boxes: float32 `(n, 4)`, `[ymin, xmin, ymax, xmax]` in pixels.
        labels: int64 `(n,)`, from 0 to the number of classes - 1.
        is_crowd: bool `(n,)`: the box is around many objects, or one too hard
            to find. What is found there is neither right nor wrong.
        areas: float32 `(n,)`, square pixels, as annotated: in COCO that of the
            outline. Where a set has none, that of the box.
    """

    image_id: int
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    is_crowd: np.ndarray
    areas: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """The training or the evaluation examples of a set.

    Attributes:
        num_examples: How many images there are.
        read: `f(index)` gives an example in a graph, where `index` is an int64
            tensor: a dict of
            `"image"`: the bytes of a JPEG, PNG, GIF, BMP or WebP file;
            `"boxes"`: float32 `(n, 4)`, `[ymin, xmin, ymax, xmax]` as shares
            of height and width, from 0 to 1, every side longer than 0;
            `"labels"`: int64 `(n,)`; `"is_crowd"`: bool `(n,)`;
            and, where the set says it, `"size"`: int64 `(2,)`, the height and
            width that the image must have.
        name: `f(index)` tells a person which image that is, and where.
        annotations: `f()` gives the list of `Annotation`s, by index, read
            once. Their boxes are those of `read`, but in pixels.
        path: `f(index)` gives the path of the file that an image is; None
            where it is none.
    """

    num_examples: int
    read: Callable
    name: Callable
    annotations: Callable
    path: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A detection set.

    Attributes:
        class_names: The name of each label.
        category_ids: The number that the set itself gives to each label: what
            a file of predictions calls it by.
        train: The training examples.
        evaluation: The evaluation examples.
        num_channels: Colors of an image.
        notes: What else there is to say of what was found.
    """

    class_names: tuple
    category_ids: tuple
    train: Split
    evaluation: Split
    num_channels: int = 3
    notes: tuple = ()

    @property
    def num_classes(self):
        """Number of classes."""
        return len(self.class_names)


def image_size(data):
    """Height and width, int32 `(2,)`, of an image file's bytes, in a graph.

    Only the header of a JPEG is looked at; others are decoded.
    """

    def decoded():
        return tf.shape(image_files.decode(data, 3))[:2]

    return tf.cond(
        tf.image.is_jpeg(data),
        lambda: tf.image.extract_jpeg_shape(data)[:2],
        decoded,
    )
