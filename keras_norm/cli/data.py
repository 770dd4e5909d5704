"""Reads the data that a command of keras-norm gets as a file or a folder."""

import os
import zipfile

import numpy as np

from keras_norm.conversion import plan
from keras_norm.data.batches import DEFAULT_BATCH_SIZE
from keras_norm.data.image_files import ImageBatches
from keras_norm.data.image_files import spread_evenly
from keras_norm.errors import ConversionError
from keras_norm.errors import one_line


def find_data(options):
    """Checks `--data` before the model is loaded.

    Args:
        options: The parsed arguments of a command.

    Returns:
        Function of the model that returns `(data, batch_size)`, as arguments of
        `keras_norm.recalibrate`; data is None without `--data`.

    Raises:
        ConversionError: if the file or folder cannot be read.
    """
    if options.data is None:
        return lambda model: (None, None)
    if not os.path.exists(options.data):
        raise ConversionError(
            f"--data does not exist. Received: --data {options.data}"
        )
    if not os.path.isdir(options.data):
        arrays = _select_examples(read_arrays(options.data, "--data"), options)
        return lambda model: (arrays, options.batch_size)

    def open_folder(model):
        plan.require_graph(model)
        data = ImageBatches(
            options.data,
            model,
            options.pixels,
            options.image_size,
            options.num_images,
            options.batch_size or DEFAULT_BATCH_SIZE,
        )
        return data, None

    return open_folder


def read_arrays(path, flag="--inputs"):
    """Returns the arrays of a file: one, or a dict of those of an `.npz` file.

    Raises:
        ConversionError: if it is not such a file.
    """
    expected = (
        OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile
    )  # fmt: skip
    try:
        with open(path, "rb") as file:
            magic = np.lib.format.MAGIC_PREFIX
            if file.read(len(magic)) == magic:
                # Memory mapping raises an error for a truncated file before
                # the whole array is allocated.
                return np.load(path, allow_pickle=False, mmap_mode="r")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except expected as error:
        raise ConversionError(
            f"{flag} must be an .npy or .npz file of inputs: "
            f"{one_line(error)}. Received: {path}"
        ) from error


def _select_examples(arrays, options):
    """Returns the arrays of `--array`, with `--num-images` examples."""
    for flag, value in (
        ("--pixels", options.pixels),
        ("--image-size", options.image_size),
    ):
        if value is not None:
            raise ConversionError(
                f"{flag} is for a folder of images; arrays are used as they "
                f"are. Received: {flag} {value}, --data {options.data}"
            )
    if options.array is not None:
        names = arrays if isinstance(arrays, dict) else {}
        if options.array not in names:
            raise ConversionError(
                f"--data has no array {options.array!r}. "
                f"Received: an .npz file with {', '.join(names) or 'none'}"
            )
        arrays = arrays[options.array]

    def select(array):
        indices = spread_evenly(len(array), options.num_images)
        return array if len(indices) == len(array) else array[list(indices)]

    if isinstance(arrays, dict):
        return {name: select(array) for name, array in arrays.items()}
    return select(arrays)
