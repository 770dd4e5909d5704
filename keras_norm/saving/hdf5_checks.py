"""Checks an HDF5 file before Keras reads it."""

import math

import h5py

from keras_norm.errors import ConversionError
from keras_norm.saving.zip_checks import FLOOR
from keras_norm.saving.zip_checks import MAX_EXPANSION
from keras_norm.saving.zip_checks import TRUST

MAX_ATTRIBUTE = 2**24


def read_text(file, key, name):
    """Returns a text attribute of a file, or None if it does not exist.

    Raises:
        ConversionError: if it is too long, or is not a text.
    """
    if key not in file.attrs:
        return None
    size = file.attrs.get_id(key).get_storage_size()
    if size <= MAX_ATTRIBUTE:
        value = file.attrs[key]
        if isinstance(value, str | bytes) and len(value) <= MAX_ATTRIBUTE:
            # TensorFlow 2.0 to 2.2 wrote bytes.
            return value.decode() if isinstance(value, bytes) else value
        size = getattr(value, "size", None)
    raise ConversionError(
        f"{name} is damaged: its attribute {key!r} should be a text of at most "
        f"{MAX_ATTRIBUTE:,} characters. Received: {key} of size {size}"
    )


def count_values(file, size, name):
    """Counts the values in all datasets of a file.

    Args:
        file: `h5py.File`.
        size: Size of the file in bytes.
        name: Name of the file in errors.

    Raises:
        ConversionError: for data that is stored elsewhere, in another file or
            under another name, and for datasets that are implausibly large for
            the size of the file.
    """
    num_values = num_bytes = 0
    seen, waiting = set(), [file["/"]]
    while waiting:
        item = waiting.pop()
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            continue
        seen.add(address)
        if isinstance(item, h5py.Dataset):
            values = _count(item, name)
            num_values += values
            num_bytes += values * item.dtype.itemsize
        elif isinstance(item, h5py.Group):
            for key in item:
                _check_link(item, key, name)
                waiting.append(item[key])
    if num_bytes > max(FLOOR, MAX_EXPANSION * size):
        raise ConversionError(
            f"{name} is refused: its datasets would expand from {size:,} bytes "
            f"to {num_bytes:,}, as a decompression bomb does; {TRUST}"
        )
    return num_values


def _check_link(group, key, name):
    link = group.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ConversionError(
            f"{name} is refused: {key[:80]!r} in {group.name[:80]!r} links to "
            f"data stored elsewhere ({type(link).__name__}); {TRUST}"
        )


def _count(dataset, name):
    if dataset.external or dataset.is_virtual:
        raise ConversionError(
            f"{name} is refused: dataset {dataset.name[:80]!r} is stored in "
            f"another file; {TRUST}"
        )
    return 0 if dataset.shape is None else math.prod(dataset.shape)
