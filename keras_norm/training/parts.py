"""A replica's share of the batch, and the parts it is computed in."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_norm.training.collectives import all_reduce_sum


@dataclasses.dataclass(frozen=True)
class Part:
    """Some rows of a replica's share.

    Attributes:
        x: Inputs, nested tensors `(N, ...)`.
        y: Targets, nested tensors `(N, ...)` or None.
        weights: Sample weights `(N,)`, or None.
        present: 0 for rows that are padding, or None where none can be.
        rows: Rows without those that were added: an int where that is known
            before any data is, else a float32 scalar.
    """

    x: Any
    y: Any
    weights: Any
    present: Any
    rows: Any

    def without_added(self, outputs):
        """Outputs of a model `(N, ...)` without the row that was added."""
        if isinstance(self.rows, int):
            return outputs
        rows = tf.cast(self.rows, tf.int32)
        return keras.tree.map_structure(lambda t: t[:rows], outputs)


def split(data, num_parts):
    """The share in parts, each of at least one row.

    A row of zeros is added where a part would have none: convolutions fail on
    empty tensors. It counts for nothing.

    Args:
        data: `(x, y, weights)`, nested tensors `(N, ...)`; None where there is
            none.
        num_parts: Number of parts.

    Returns:
        List of `Part`.

    Raises:
        ValueError: if a known number of rows cannot be split evenly.
    """
    x, y, weights = data
    first = keras.tree.flatten(x)[0]
    rows = first.shape[0]
    if rows is None:
        rows = tf.shape(first)[0]
        return [_filled(*part) for part in _slices(data, rows, num_parts)]
    if rows % num_parts:
        raise ValueError(
            "A replica's share of the batch cannot be split evenly. Received: "
            f"accumulation_steps={num_parts}, rows={rows}"
        )
    return [_static(*part) for part in _slices(data, rows, num_parts)]


def first_share(strategy, epoch_iterator):
    """The first replica's share of the first batch of a Keras iterator."""
    for _, _, batches in epoch_iterator:
        return keras.tree.map_structure(
            lambda value: strategy.experimental_local_results(value)[0],
            next(batches),
        )


def fractions(sizes):
    """What each part counts for of the global batch; all of them sum to 1.

    Args:
        sizes: What the parts of this replica's share count for. Where they are
            ints, those of every replica are the same.

    Returns:
        `(fractions, total)`, with the size of the global batch where it had to
        be asked for, else None.
    """
    if all(isinstance(size, int) for size in sizes):
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        return [size / (sum(sizes) * replicas) for size in sizes], None
    (total,) = all_reduce_sum([tf.add_n(sizes)])
    return [tf.math.divide_no_nan(size, total) for size in sizes], total


def _slices(data, rows, num_parts):
    if num_parts == 1:
        return [data]
    ends = [index * rows // num_parts for index in range(num_parts + 1)]
    return [
        _each(lambda t, b=begin, e=end: t[b:e], data)
        for begin, end in zip(ends[:-1], ends[1:], strict=True)
    ]


def _static(x, y, weights):
    rows = keras.tree.flatten(x)[0].shape[0]
    if weights is not None:
        weights = tf.cast(weights, tf.float32)
    return Part(x, y, weights, weights, rows)


def _filled(x, y, weights):
    """The rows there are, or one of zeros."""
    rows = tf.shape(keras.tree.flatten(x)[0])[0]
    present = tf.ones([rows]) if weights is None else weights
    missing = tf.maximum(1 - rows, 0)
    x, y, weights, present = _each(
        lambda t: _padded(t, missing), (x, y, weights, present)
    )
    if weights is not None:
        weights = tf.cast(weights, tf.float32)
    return Part(x, y, weights, present, tf.cast(rows, tf.float32))


def _padded(tensor, missing):
    # Not `tf.pad`: oneDNN takes it for the padding of a convolution.
    shape = tf.concat([[missing], tf.shape(tensor)[1:]], axis=0)
    return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)


def _each(function, data):
    return keras.tree.map_structure(
        lambda t: None if t is None else function(t), data
    )
