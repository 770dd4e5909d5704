"""Random access to the records of TFRecord files.

TFRecord files have no index. It is built once from the headers of all records
and stored next to the files. With it, training resumes at any step without
delay, shuffling covers the whole dataset, every worker reads only its own
shard, and the order does not depend on the number of workers. The price is one
random read per example, which is fast on an SSD and slow on a hard disk or an
object store.
"""

import concurrent.futures
import os
import pathlib
import struct
import time
import zipfile

import numpy as np
import tensorflow as tf
from absl import logging

from recipes import atomic_io
from recipes.errors import RecipeError

# A record consists of its length (8 bytes), the checksum of the length (4), the
# data, and the checksum of the data (4).
HEADER = struct.Struct("<Q")
FRAME_BYTES = 16
NUM_THREADS = 32
LOG_EVERY_SECONDS = 5.0


class RecordIndex:
    """Index of the records of several files.

    Args:
        files: Ordered paths of the TFRecord files.
        counts: Number of records in each file.
        offsets: Offset of each record in its file, for all files.
    """

    def __init__(self, files, counts, offsets):
        self._files = [str(file) for file in files]
        self._ends = np.cumsum(counts, dtype=np.int64)
        self._tensors = (
            tf.constant(self._files),
            tf.constant(self._ends),
            tf.constant(offsets, tf.int64),
        )

    def __len__(self):
        return int(self._ends[-1])

    def place(self, index):
        """Returns the file of a record, and its position in the file."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        first = self._ends[file - 1] if file else 0
        return self._files[file], int(index - first)

    def read(self, index):
        """Reads the bytes of a record and verifies their checksum.

        TensorFlow's reader starts at the offset and stops after one record. No
        Python code runs, for which threads would wait.

        Args:
            index: Scalar int64 tensor.
        """
        files, ends, offsets = self._tensors
        file = tf.searchsorted(ends, [index], side="right")
        variant = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(files, file),
            compression_type="",
            buffer_size=tf.constant(0, tf.int64),
            byte_offsets=tf.gather(offsets, [index]),
        )
        records = tf.data.experimental.from_variant(
            variant, tf.TensorSpec((), tf.string)
        )
        return records.take(1).get_single_element()


def load_index(files, counts, cache):
    """Loads the index of TFRecord files, or builds it.

    Args:
        files: Ordered paths of the TFRecord files.
        counts: Expected number of records in each file.
        cache: Path of the .npz file that stores the index. If its folder is not
            writable, every run builds the index.

    Returns:
        A `RecordIndex`.

    Raises:
        RecipeError: If a file does not exist, is damaged, or has another number
            of records.
    """
    files = [pathlib.Path(file) for file in files]
    sizes = np.array([_size(file) for file in files], np.int64)
    counts = np.array(counts, np.int64)
    offsets = _load_offsets(cache, sizes, counts)
    if offsets is None:
        offsets = _build(files, counts)
        _write_offsets(cache, sizes=sizes, counts=counts, offsets=offsets)
    return RecordIndex(files, counts, offsets)


def read_offsets(file):
    """Returns the offset of each record of a file.

    Raises:
        RecipeError: If the file ends inside a record.
    """
    offsets, offset = [], 0
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if hasattr(os, "posix_fadvise"):
            # Otherwise the system reads ahead, and so reads the whole file.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        while offset < size:
            header = os.pread(descriptor, HEADER.size, offset)
            offsets.append(offset)
            if len(header) == HEADER.size:
                offset += HEADER.unpack(header)[0] + FRAME_BYTES
            if offset > size or len(header) < HEADER.size:
                raise RecipeError(
                    f"{file} is damaged: record {len(offsets) - 1} at byte "
                    f"{offsets[-1]} does not end within its {size} bytes. "
                    "Prepare the dataset again."
                )
    finally:
        os.close(descriptor)
    return np.array(offsets, np.int64)


def _size(file):
    try:
        return file.stat().st_size
    except OSError as error:
        raise RecipeError(
            f"{file} cannot be read: {error.strerror}. Datasets must be on a "
            "local or mounted disk."
        ) from error


def _build(files, counts):
    start = logged = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        offsets_of_files = []
        for offsets in pool.map(read_offsets, files):
            offsets_of_files.append(offsets)
            if time.monotonic() - logged > LOG_EVERY_SECONDS:
                logged = time.monotonic()
                logging.warning(
                    "indexing %s: %d of %d files, %.0f s",
                    files[0].parent,
                    len(offsets_of_files),
                    len(files),
                    logged - start,
                )
    for file, offsets, count in zip(
        files, offsets_of_files, counts, strict=True
    ):
        if len(offsets) != count:
            raise RecipeError(
                f"{file} has {len(offsets)} records, but the dataset's "
                f"metadata says {count}. Prepare the dataset again."
            )
    return np.concatenate(offsets_of_files)


def _load_offsets(cache, sizes, counts):
    """Returns the cached offsets, or None if files have other sizes."""
    try:
        # Given a path, NumPy does not close a file that is not an archive.
        with open(cache, "rb") as file, np.load(file) as stored:
            is_valid = np.array_equal(stored["sizes"], sizes)
            if is_valid and np.array_equal(stored["counts"], counts):
                return stored["offsets"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        pass
    return None


def _write_offsets(cache, **arrays):
    """Writes the cache atomically, if its folder is writable."""
    try:
        with (
            atomic_io.atomic_file(cache, concurrent=True) as partial,
            partial.open("wb") as file,
        ):
            np.savez(file, **arrays)
    except OSError as error:
        logging.info("the index of %s was not saved: %s", cache.parent, error)
