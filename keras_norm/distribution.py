"""Collective operations over the replicas of a data-parallel step.

TensorFlow: the replicas of the `tf.distribute` strategy whose replica function
is running. JAX: one, because arrays are already global under
`keras.distribution`. torch: one; several processes raise an error.
"""

import keras


def count_replicas():
    """Returns the number of replicas that hold separate tensors.

    Raises:
        ValueError: under torch with more than one process.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _replica_context()
        return 1 if context is None else context.num_replicas_in_sync
    if backend == "torch":
        _require_one_torch_process()
    return 1


def all_reduce_sum(tensors):
    """Sums each tensor over all replicas; differentiable.

    Args:
        tensors: List of tensors with the same shapes on every replica.

    Returns:
        List of tensors, equal on every replica.
    """
    tensors = list(tensors)
    if not tensors or count_replicas() == 1:
        return tensors
    import tensorflow as tf

    return _replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def all_reduce_sum_packed(tensors):
    """Like `all_reduce_sum`, with one message per dtype. TensorFlow only.

    Args:
        tensors: List of many small tensors of static shapes.
    """
    import tensorflow as tf

    result = list(tensors)
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        indices = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = [tf.reshape(tensors[i], [-1]) for i in indices]
        (summed,) = all_reduce_sum([tf.concat(flat, axis=0)])
        pieces = tf.split(summed, [t.shape[0] for t in flat])
        for index, piece in zip(indices, pieces, strict=True):
            result[index] = tf.reshape(piece, tensors[index].shape)
    return result


def expand_logs_for_workers(logs):
    """Returns logs in the shape that `fit` expects. TensorFlow only.

    Under `MultiWorkerMirroredStrategy`, `fit` requires vectors, not scalars.

    Args:
        logs: Dict from metric name to scalar tensor.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return logs
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def _replica_context():
    import tensorflow as tf

    return tf.distribute.get_replica_context()


def _require_one_torch_process():
    import torch

    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return
    world_size = distributed.get_world_size()
    if world_size > 1:
        raise ValueError(
            "Batch statistics over several torch processes are not supported. "
            "Use a batch-independent layer such as `FRN`, or the TensorFlow "
            f"backend. Received: world_size={world_size}"
        )
