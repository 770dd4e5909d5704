"""Splits a per-replica batch into microbatches, with their loss fractions."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_norm.distribution import all_reduce_sum
from keras_norm.training.tf_internals import get_masks
from keras_norm.training.tf_internals import set_masks


@dataclasses.dataclass(frozen=True)
class Microbatch:
    """Some examples of a per-replica batch.

    Attributes:
        x: Inputs, nested tensors `(N, ...)`.
        y: Targets, nested tensors `(N, ...)`, or None.
        weights: Sample weights, nested tensors `(N, ...)`, or None.
        present: `(N,)`, 0 for padding, which are examples whose sample weights
            are 0 for every output. None if there can be no padding.
        num_examples: Number of examples, not counting an example that was
            added: an int if it is known statically, else a float32 scalar.
    """

    x: Any
    y: Any
    weights: Any
    present: Any
    num_examples: Any

    @property
    def nonempty(self):
        """1.0, or 0.0 if the only example was added."""
        if isinstance(self.num_examples, int):
            return 1.0
        return tf.minimum(self.num_examples, 1.0)

    def remove_padding(self, outputs):
        """Removes the example that was added from outputs `(N, ...)`."""
        if isinstance(self.num_examples, int):
            return outputs
        size = tf.cast(self.num_examples, tf.int32)
        masks = [None if m is None else m[:size] for m in get_masks(outputs)]
        outputs = _map_tensors(lambda t: t[:size], outputs)
        set_masks(outputs, masks)
        return outputs


def split_batch(data, num_microbatches):
    """Splits a per-replica batch into microbatches of at least one example.

    An example of zeros is added to an empty microbatch, because convolutions
    fail on empty tensors. It does not affect the results.

    Args:
        data: `(x, y, weights)`, nested tensors `(N, ...)`, or None.
        num_microbatches: Number of microbatches.

    Returns:
        List of `Microbatch`.

    Raises:
        ValueError: if a known batch size cannot be split evenly.
    """
    x, y, weights = data
    first = _first_tensor(x)
    size = first.shape[0]
    # An eager tensor has a static size, which other replicas may not share.
    if size is None or tf.executing_eagerly():
        size = tf.shape(first)[0]
        return [
            _make_padded(*part)
            for part in _slices(data, size, num_microbatches)
        ]
    if size % num_microbatches:
        raise ValueError(
            "The per-replica batch size must be divisible by "
            "`accumulation_steps`. Received: "
            f"accumulation_steps={num_microbatches}, "
            f"per-replica batch size={size}"
        )
    return [
        _make_static(*part) for part in _slices(data, size, num_microbatches)
    ]


def local_batches(strategy, batch):
    """Returns the list of per-replica batches of this worker.

    Args:
        strategy: The strategy that distributed the batch.
        batch: Nested distributed values.
    """
    values = [strategy.experimental_local_results(v) for v in _flatten(batch)]
    return [
        keras.tree.pack_sequence_as(batch, list(local))
        for local in zip(*values, strict=True)
    ]


def first_batch(epoch_iterator):
    """Returns the first batch of a Keras epoch iterator."""
    for _, _, batches in epoch_iterator:
        return next(batches)


def first_examples(batches, num_examples):
    """Returns `(x, y, weights)` of the first examples of some batches."""
    data = [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]

    def concatenate(*tensors):
        if tensors[0] is None:
            return None
        pieces = [tf.convert_to_tensor(t)[:num_examples] for t in tensors]
        return tf.concat(pieces, axis=0)[:num_examples]

    return keras.tree.map_structure(concatenate, *data)


def microbatch_fractions(microbatches, sizes, divisors, counts_state):
    """Computes the fractions of the global batch that microbatches make up.

    Args:
        microbatches: The microbatches of this replica.
        sizes: Their sizes, see `ReplicaModel.part_size`. Ints are the same on
            every replica.
        divisors: List of dicts of the divisors of losses.
        counts_state: If True, new state is weighted by the number of present
            examples instead of `sizes`.

    Returns:
        `(fractions, total, state_total)`. `fractions` is a list of dicts with
        `examples`, which sum to 1 over all microbatches; `nonempty`, see
        `Microbatch`; `divisors`, a dict of fractions of the global divisors;
        and `state`, the weight of new state. The totals, of sizes and of
        present examples, are None if they are not needed.
    """
    present = [microbatch.present for microbatch in microbatches]
    counts_state = counts_state and present[0] is not None
    is_static = all(isinstance(size, int) for size in sizes)
    sums = {} if is_static else {"sizes": tf.add_n(sizes)}
    if counts_state:
        present = [_count(flags) for flags in present]
        sums["present"] = tf.add_n(present)
    for name in divisors[0]:
        sums[name] = tf.add_n([each[name] for each in divisors])
    totals = all_reduce_sum(list(sums.values()))
    totals = dict(zip(sums, totals, strict=True))
    if is_static:
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        examples = [size / (sum(sizes) * replicas) for size in sizes]
    else:
        examples = _divide(sizes, totals["sizes"])
    state = examples
    if counts_state:
        state = _divide(present, totals["present"])
    fractions = [
        {
            "examples": fraction,
            "state": state_fraction,
            "nonempty": microbatch.nonempty,
            "divisors": {
                name: tf.math.divide_no_nan(value, totals[name])
                for name, value in local.items()
            },
        }
        for microbatch, fraction, state_fraction, local in zip(
            microbatches, examples, state, divisors, strict=True
        )
    ]
    total = totals.get("sizes")
    return fractions, total, totals.get("present", total)


def _divide(sizes, total):
    return [tf.math.divide_no_nan(size, total) for size in sizes]


def _count(present):
    return tf.reduce_sum(tf.cast(present != 0, tf.float32))


def _slices(data, size, num_microbatches):
    if num_microbatches == 1:
        return [data]
    ends = [
        index * size // num_microbatches
        for index in range(num_microbatches + 1)
    ]
    return [
        _map_tensors(lambda t, b=begin, e=end: t[b:e], data)
        for begin, end in zip(ends[:-1], ends[1:], strict=True)
    ]


def _make_static(x, y, weights):
    weights = _map_tensors(lambda t: tf.cast(t, tf.float32), weights)
    size = _first_tensor(x).shape[0]
    return Microbatch(x, y, weights, _present(weights), size)


def _make_padded(x, y, weights):
    """Creates a microbatch; adds an example of zeros if it is empty."""
    size = tf.shape(_first_tensor(x))[0]
    weights = _map_tensors(lambda t: tf.cast(t, tf.float32), weights)
    present = _present(weights)
    if present is None:
        present = tf.ones([size])
    missing = tf.maximum(1 - size, 0)
    x, y, weights, present = _map_tensors(
        lambda t: _pad(t, missing), (x, y, weights, present)
    )
    return Microbatch(x, y, weights, present, tf.cast(size, tf.float32))


def _present(weights):
    """Returns `(N,)`, 0 where all sample weights are 0; None without them."""
    flat = _flatten(weights)
    if not flat or any(tensor is None for tensor in flat):
        # An output without sample weights uses every example.
        return None
    found = [
        tf.reduce_any(t != 0, axis=list(range(1, t.shape.rank))) for t in flat
    ]
    return tf.cast(tf.reduce_any(tf.stack(found), axis=0), tf.float32)


def _pad(tensor, missing):
    # Not `tf.pad`, which oneDNN mistakes for the padding of a convolution.
    shape = tf.concat([[missing], tf.shape(tensor)[1:]], axis=0)
    return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)


def _first_tensor(x):
    return next(t for t in _flatten(x) if t is not None)


def _flatten(data):
    return keras.tree.flatten(data)


def _map_tensors(function, data):
    return keras.tree.map_structure(
        lambda t: None if t is None else function(t), data
    )
