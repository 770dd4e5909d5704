"""Sums over replicas, in as few messages as there are dtypes."""

import tensorflow as tf


def all_reduce_sum(tensors):
    """The sum of each tensor over all replicas.

    Args:
        tensors: List of tensors, each of one shape on every replica.

    Returns:
        List of tensors, equal on every replica.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def packed_sum(tensors):
    """As `all_reduce_sum`, for many small tensors: one message a dtype."""
    result = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = [tf.reshape(tensors[i], [-1]) for i in places]
        (summed,) = all_reduce_sum([tf.concat(flat, axis=0)])
        pieces = tf.split(summed, [t.shape[0] for t in flat])
        for place, piece in zip(places, pieces, strict=True):
            result[place] = tf.reshape(piece, tensors[place].shape)
    return result


def for_every_worker(logs):
    """Logs as `fit` takes them: with several workers it wants vectors."""
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return logs
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}
