"""The replicas of a data-parallel run, whatever the backend.

TensorFlow: those of the `tf.distribute` strategy whose replica function is
running. JAX: under `keras.distribution` an array is global already, so there is
one. torch: one; several processes are refused.
"""

import keras


def count():
    """The number of replicas whose tensors are separate.

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


def all_reduce_sum(values):
    """Sums each tensor over all replicas; differentiable.

    Args:
        values: List of tensors of the same shapes on every replica.

    Returns:
        List of tensors, equal on every replica.
    """
    if count() == 1:
        return values
    import tensorflow as tf

    return _replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


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
