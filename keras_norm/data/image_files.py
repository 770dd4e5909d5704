"""Batches of the images in a folder, for `keras-norm recalibrate`."""

import importlib.util
import os
import pathlib

import keras
import numpy as np

from keras_norm.errors import ConversionError
from keras_norm.errors import one_line
from keras_norm.graphs import graph

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_COLOR_MODES = {1: "grayscale", 3: "rgb", 4: "rgba"}
# Factor and offset of pixels in [0, 255].
_RANGES = {"0..255": (1, 0), "0..1": (1 / 255, 0), "tf": (1 / 127.5, -1)}


class ImageBatches:
    """Batches of image files, which are read again in every iteration.

    Images are resized so that they cover the model's input, and their center is
    cropped.

    Args:
        folder: The folder, which is searched recursively.
        model: The model, with one input of images.
        pixels: `"0..255"`, `"0..1"`, or a mode of
            `keras.applications.imagenet_utils.preprocess_input`.
        image_size: Height and width, or None for those of the model's input.
        num_images: Number of images, spread evenly over the sorted files, or
            None for all.
        batch_size: Number of images in a batch.

    Raises:
        ConversionError: if the folder has no images, or a setting is missing.
    """

    def __init__(
        self, folder, model, pixels, image_size, num_images, batch_size
    ):
        self._pixels = pixels
        self._batch_size = batch_size
        self._channels_first, channels, size = _read_shape(model, image_size)
        self._size = size
        self._color_mode = _COLOR_MODES[channels]
        if pixels is None:
            raise ConversionError(
                "pass --pixels, the range of the pixels that the model was "
                "trained with, for a folder: 0..255, 0..1, tf (-1..1), "
                f"caffe or torch. Received: --data {folder}"
            )
        if pixels not in _RANGES and channels != 3:
            raise ConversionError(
                f"--pixels {pixels} is for images of 3 channels. "
                f"Received: a model of {channels} channels"
            )
        if importlib.util.find_spec("PIL") is None:
            raise ConversionError(
                "images are read with Pillow, which is not installed: run pip "
                "install pillow, or pass an .npy or .npz file."
            )
        files = [
            path
            for path in sorted(pathlib.Path(folder).rglob("*"))
            if path.suffix.lower() in EXTENSIONS and path.is_file()
        ]
        if not files:
            raise ConversionError(
                f"--data has no images ({', '.join(EXTENSIONS)}). "
                f"Received: --data {folder}"
            )
        self._files = [files[i] for i in spread_evenly(len(files), num_images)]

    def __len__(self):
        return -(-len(self._files) // self._batch_size)

    def __iter__(self):
        for start in range(0, len(self._files), self._batch_size):
            files = self._files[start : start + self._batch_size]
            images = self._scale(np.stack([self._read(f) for f in files]))
            yield np.moveaxis(images, -1, 1) if self._channels_first else images

    def _read(self, path):
        try:
            image = keras.utils.load_img(
                os.fspath(path),
                color_mode=self._color_mode,
                target_size=self._size,
                interpolation="bilinear",
                keep_aspect_ratio=True,
            )
            return keras.utils.img_to_array(image, "channels_last", "float32")
        except Exception as error:
            raise ConversionError(
                f"an image cannot be read: {one_line(error)[:200]}. "
                f"Received: {path}"
            ) from error

    def _scale(self, images):
        if self._pixels in _RANGES:
            factor, offset = _RANGES[self._pixels]
            return images * np.float32(factor) + np.float32(offset)
        return keras.applications.imagenet_utils.preprocess_input(
            images, data_format="channels_last", mode=self._pixels
        )


def spread_evenly(size, number):
    """Returns the indices of `number` of `size` examples, None for all."""
    if number is None or number >= size:
        return range(size)
    if number < 1:
        raise ConversionError(
            f"--num-images must be positive. Received: {number}"
        )
    return [i * size // number for i in range(number)]


def _read_shape(model, image_size):
    """Returns `(channels first, number of channels, (height, width))`."""
    graph_inputs = graph.flat_inputs(model)
    shape = tuple(graph_inputs[0].shape)
    if len(graph_inputs) == 1 and len(shape) == 4:
        for axis in (3, 1):
            if shape[axis] in _COLOR_MODES:
                size = shape[1:3] if axis == 3 else shape[2:]
                return axis == 1, shape[axis], _image_size(size, image_size)
    shapes = ", ".join(str(tuple(x.shape)) for x in graph_inputs)
    raise ConversionError(
        "a folder of images needs a model with one input of images, with 1, 3 "
        f"or 4 channels: pass an .npz file instead. Received: inputs {shapes}"
    )


def _image_size(size, image_size):
    if image_size is not None:
        size = (image_size, image_size)
    if None in size:
        raise ConversionError(
            "pass --image-size: the model takes images of any size. "
            f"Received: input size {size}"
        )
    return size
