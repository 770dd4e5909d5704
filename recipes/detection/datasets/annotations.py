"""Data structures of a detection dataset: annotations, splits and sources."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from recipes.data import image_files


@dataclasses.dataclass(frozen=True)
class Annotation:
    """The ground truth of one image, as NumPy arrays.

    Attributes:
        image_id: The dataset's id of the image.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        boxes: float32 `(n, 4)`, `[ymin, xmin, ymax, xmax]` in pixels.
        labels: int64 `(n,)`, from 0 to the number of classes - 1.
        is_crowd: bool `(n,)`. True for a box around many objects, or around an
            object that is too hard to detect. Detections in such a box count
            neither as true nor as false positives.
        areas: float32 `(n,)`, annotated areas in square pixels. COCO annotates
            the area of the segmentation. Without annotated areas, the areas of
            the boxes.
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
    """The training or the evaluation split of a dataset.

    Attributes:
        num_examples: Number of images.
        read: `f(index)` returns an example in a graph for an int64 tensor
            `index`: a dict of
            `"image"`: the bytes of a JPEG, PNG, GIF, BMP or WebP file;
            `"boxes"`: float32 `(n, 4)`, `[ymin, xmin, ymax, xmax]` relative to
            height and width, from 0 to 1, every side longer than 0;
            `"labels"`: int64 `(n,)`; `"is_crowd"`: bool `(n,)`;
            and, for datasets that annotate it, `"size"`: int64 `(2,)`, the
            height and width that the image must have.
        name: `f(index)` returns a description of the image and its location
            for messages.
        annotations: `f()` returns the list of `Annotation`s by index, read
            once. They have the boxes of `read`, in pixels.
        path: `f(index)` returns the path of the image's file; None if images
            are not stored as files.
    """

    num_examples: int
    read: Callable
    name: Callable
    annotations: Callable
    path: Callable | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A detection dataset.

    Attributes:
        class_names: Class name of each label.
        category_ids: The dataset's category id of each label, which is written
            into the file of predictions.
        train: The training `Split`.
        evaluation: The evaluation `Split`.
        num_channels: Number of channels of an image.
        notes: Remarks about the dataset to print, a tuple of strings.
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
    """Returns the height and width, int32 `(2,)`, of an encoded image.

    Runs in a graph. JPEG files are not decoded; only their header is read.

    Args:
        data: Scalar string tensor, the bytes of the image file.
    """

    def decoded():
        return tf.shape(image_files.decode(data, 3))[:2]

    return tf.cond(
        tf.image.is_jpeg(data),
        lambda: tf.image.extract_jpeg_shape(data)[:2],
        decoded,
    )
