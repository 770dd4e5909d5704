"""Where every record of TFRecord files begins, for random access.

TFRecord files know no index: it is built once, by hopping from header to header
of every file, and kept beside the files. With it a record is read by its
number, so that a resume at any step costs nothing, the shuffle goes over the
whole set, every worker reads only its share, and the order does not depend on
the number of workers. The price is one random read an example: little on an
SSD, much on a spinning disk or an object store.
"""

import concurrent.futures
import os
import pathlib
import struct
import tempfile
import time
import zipfile

import numpy as np
import tensorflow as tf
from absl import logging

from recipes.errors import RecipeError

# A record is its length in 8 bytes, their checksum in 4, the data, and the
# data's checksum in 4.
HEADER = struct.Struct("<Q")
FRAME_BYTES = 16
NUM_THREADS = 32
LOG_EVERY_SECONDS = 5.0


class RecordIndex:
    """Access to the records of some files by their number.

    Args:
        files: Paths of the TFRecord files, in order.
        counts: Number of records of each.
        offsets: Where each record begins in its file, all files in a row.
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
        """The file of a record and the record's number in it."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        first = self._ends[file - 1] if file else 0
        return self._files[file], int(index - first)

    def read(self, index):
        """The bytes of the record `index`, a tensor, checksums verified.

        TensorFlow's own reader starts at the offset, takes one record and
        stops: no Python runs, so that threads do not wait for one another.
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
    """The index of the files, from the cache where that still holds.

    Args:
        files: Paths of the TFRecord files, in order.
        counts: Number of records that each should hold.
        cache: Path of the .npz file that keeps the index. Where its folder
            cannot be written to, the index is built anew by every run.

    Raises:
        RecipeError: if a file is not there, damaged, or holds another number
            of records.
    """
    files = [pathlib.Path(file) for file in files]
    sizes = np.array([_size(file) for file in files], np.int64)
    counts = np.array(counts, np.int64)
    offsets = _cached(cache, sizes, counts)
    if offsets is None:
        offsets = _build(files, counts)
        _save(cache, sizes=sizes, counts=counts, offsets=offsets)
    return RecordIndex(files, counts, offsets)


def read_offsets(file):
    """Where each record of one file begins.

    Raises:
        RecipeError: if the file ends within a record.
    """
    offsets, offset = [], 0
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if hasattr(os, "posix_fadvise"):
            # Or else the system reads ahead, that is, everything.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        while offset < size:
            header = os.pread(descriptor, HEADER.size, offset)
            offsets.append(offset)
            if len(header) == HEADER.size:
                offset += HEADER.unpack(header)[0] + FRAME_BYTES
            if offset > size or len(header) < HEADER.size:
                raise RecipeError(
                    f"{file} is damaged: record {len(offsets) - 1}, from byte "
                    f"{offsets[-1]}, does not end within its {size} bytes. "
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
            f"{file} cannot be read: {error.strerror}. The files of a dataset "
            "must lie on a disk of this machine or one that it mounts."
        ) from error


def _build(files, counts):
    start = logged = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(NUM_THREADS) as pool:
        parts = []
        for offsets in pool.map(read_offsets, files):
            parts.append(offsets)
            if time.monotonic() - logged > LOG_EVERY_SECONDS:
                logged = time.monotonic()
                logging.warning(
                    "indexing %s: %d of %d files, %.0f s",
                    files[0].parent,
                    len(parts),
                    len(files),
                    logged - start,
                )
    for file, offsets, count in zip(files, parts, counts, strict=True):
        if len(offsets) != count:
            raise RecipeError(
                f"{file} holds {len(offsets)} records where the dataset's "
                f"description says {count}. Prepare the dataset again."
            )
    return np.concatenate(parts)


def _cached(cache, sizes, counts):
    """The offsets, or None where there are none for files of these sizes."""
    try:
        # NumPy leaves a file of its own open where it is no archive.
        with open(cache, "rb") as file, np.load(file) as stored:
            holds = np.array_equal(stored["sizes"], sizes)
            if holds and np.array_equal(stored["counts"], counts):
                return stored["offsets"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        pass
    return None


def _save(cache, **arrays):
    """Writes the cache at once or not at all; without right to, not at all."""
    try:
        with tempfile.NamedTemporaryFile(
            dir=cache.parent, prefix=cache.name, suffix=".tmp", delete=False
        ) as file:
            np.savez(file, **arrays)
        os.replace(file.name, cache)
    except OSError as error:
        logging.info("the index of %s is not kept: %s", cache.parent, error)
