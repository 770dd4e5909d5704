"""A replica's share of the batch, and the parts it is computed in."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_norm.training.collectives import all_reduce_sum
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks


@dataclasses.dataclass(frozen=True)
class Microbatch:
    """Some rows of a replica's share.

    Attributes:
        x: Inputs, nested tensors `(N, ...)`.
        y: Targets, nested tensors `(N, ...)` or None.
        weights: Sample weights, nested tensors `(N, ...)` or None.
        present: `(N,)`, 0 for rows that are padding: those with no sample
            weight but 0, in any output. None where none can be.
        num_examples: Number of examples without padding: an int if it is known
            before any data is, else a float32 scalar.
    """

    x: Any
    y: Any
    weights: Any
    present: Any
    num_examples: Any

    @property
    def exists(self):
        """1.0, or 0.0 where every row was added."""
        if isinstance(self.num_examples, int):
            return 1.0
        return tf.minimum(self.num_examples, 1.0)

    def remove_padding(self, outputs):
        """Outputs of a model `(N, ...)` without the row that was added."""
        if isinstance(self.num_examples, int):
            return outputs
        rows = tf.cast(self.num_examples, tf.int32)
        masks = [None if m is None else m[:rows] for m in get_masks(outputs)]
        outputs = _each(lambda t: t[:rows], outputs)
        set_masks(outputs, masks)
        return outputs


def split_batch(data, num_microbatches):
    """The share in parts, each of at least one row.

    A row of zeros is added where a part would have none: convolutions fail on
    empty tensors. It counts for nothing.

    Args:
        data: `(x, y, weights)`, nested tensors `(N, ...)`; None where there is
            none.
        num_microbatches: Number of parts.

    Returns:
        List of `Part`.

    Raises:
        ValueError: if a known number of rows cannot be split evenly.
    """
    x, y, weights = data
    first = _first(x)
    rows = first.shape[0]
    # An eager tensor knows its own rows, not those of other replicas.
    if rows is None or tf.executing_eagerly():
        rows = tf.shape(first)[0]
        return [
            _filled(*part) for part in _slices(data, rows, num_microbatches)
        ]
    if rows % num_microbatches:
        raise ValueError(
            "A replica's share of the batch cannot be split evenly. Received: "
            f"accumulation_steps={num_microbatches}, rows={rows}"
        )
    return [_static(*part) for part in _slices(data, rows, num_microbatches)]


def local_batches(strategy, batch):
    """The shares of a batch that this worker's replicas have, in a list.

    Args:
        strategy: The strategy that the batch was distributed by.
        batch: Nested values of it.
    """
    shares = [strategy.experimental_local_results(v) for v in _flat(batch)]
    return [
        keras.tree.pack_sequence_as(batch, list(share))
        for share in zip(*shares, strict=True)
    ]


def first_batch(epoch_iterator):
    """The first batch of a Keras iterator."""
    for _, _, batches in epoch_iterator:
        return next(batches)


def first_examples(batches, num_examples):
    """`(x, y, weights)` of the first examples of some batches."""
    data = [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]

    def joined(*tensors):
        if tensors[0] is None:
            return None
        pieces = [tf.convert_to_tensor(t)[:num_examples] for t in tensors]
        return tf.concat(pieces, axis=0)[:num_examples]

    return keras.tree.map_structure(joined, *data)


def microbatch_fractions(parts, sizes, divisors, counts_state):
    """What each part counts for of the global batch.

    Args:
        parts: The parts of this replica's share.
        sizes: What they count for. Where they are ints, those of every replica
            are the same.
        divisors: For each a dict of what losses divide by.
        counts_state: Whether new state counts by the rows that are present,
            and not by `sizes`.

    Returns:
        `(shares, total, state_total)`. A share is a dict: `examples`, of which
        all sum to 1; `exists`, see `Part`; `divisors`, dict of fractions of
        the global divisors; `state`, what new state counts for. The totals of
        sizes and of rows present are None where they need not be asked for.
    """
    present = [part.present for part in parts]
    counts_state = counts_state and present[0] is not None
    is_static = all(isinstance(size, int) for size in sizes)
    sums = {} if is_static else {"sizes": tf.add_n(sizes)}
    if counts_state:
        present = [_count(flags) for flags in present]
        sums["present"] = tf.add_n(present)
    for name in divisors[0]:
        sums[name] = tf.add_n([part[name] for part in divisors])
    totals = all_reduce_sum(list(sums.values()))
    totals = dict(zip(sums, totals, strict=True))
    if is_static:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        examples = [size / (sum(sizes) * replicas) for size in sizes]
    else:
        examples = _fractions(sizes, totals["sizes"])
    state = examples
    if counts_state:
        state = _fractions(present, totals["present"])
    result = [
        {
            "examples": fraction,
            "state": moved,
            "exists": part.exists,
            "divisors": {
                name: tf.math.divide_no_nan(value, totals[name])
                for name, value in divided.items()
            },
        }
        for part, fraction, moved, divided in zip(
            parts, examples, state, divisors, strict=True
        )
    ]
    total = totals.get("sizes")
    return result, total, totals.get("present", total)


def _fractions(sizes, total):
    return [tf.math.divide_no_nan(size, total) for size in sizes]


def _count(present):
    return tf.reduce_sum(tf.cast(present != 0, tf.float32))


def _slices(data, rows, num_microbatches):
    if num_microbatches == 1:
        return [data]
    ends = [
        index * rows // num_microbatches
        for index in range(num_microbatches + 1)
    ]
    return [
        _each(lambda t, b=begin, e=end: t[b:e], data)
        for begin, end in zip(ends[:-1], ends[1:], strict=True)
    ]


def _static(x, y, weights):
    rows = _first(x).shape[0]
    weights = _each(lambda t: tf.cast(t, tf.float32), weights)
    return Microbatch(x, y, weights, _present(weights), rows)


def _filled(x, y, weights):
    """The rows there are, or one of zeros."""
    rows = tf.shape(_first(x))[0]
    weights = _each(lambda t: tf.cast(t, tf.float32), weights)
    present = _present(weights)
    if present is None:
        present = tf.ones([rows])
    missing = tf.maximum(1 - rows, 0)
    x, y, weights, present = _each(
        lambda t: _padded(t, missing), (x, y, weights, present)
    )
    return Microbatch(x, y, weights, present, tf.cast(rows, tf.float32))


def _present(weights):
    """`(N,)`, 0 for rows whose weights are all 0; None where all count."""
    flat = _flat(weights)
    if not flat or any(tensor is None for tensor in flat):
        # An output without weights takes every row.
        return None
    found = [
        tf.reduce_any(t != 0, axis=list(range(1, t.shape.rank))) for t in flat
    ]
    return tf.cast(tf.reduce_any(tf.stack(found), axis=0), tf.float32)


def _padded(tensor, missing):
    # Not `tf.pad`: oneDNN takes it for the padding of a convolution.
    shape = tf.concat([[missing], tf.shape(tensor)[1:]], axis=0)
    return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)


def _first(x):
    return next(t for t in _flat(x) if t is not None)


def _flat(data):
    return keras.tree.flatten(data)


def _each(function, data):
    return keras.tree.map_structure(
        lambda t: None if t is None else function(t), data
    )
