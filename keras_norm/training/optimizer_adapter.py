"""Keras' optimizer, applied once for all replicas."""

import contextlib

import keras

from keras_norm.training.clipping import OPTIMIZER_NAMES


def check_optimizer(optimizer):
    """Refuses an optimizer that does what the training step does.

    Raises:
        ValueError: if it scales the loss or accumulates gradients.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "`ReplicaModel` scales the loss itself: pass the optimizer inside. "
            f"Received: optimizer={optimizer.name}"
        )
    if optimizer is not None and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "`ReplicaModel` takes `accumulation_steps`. Received: "
            "optimizer.gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}"
        )


def apply_gradients(optimizer, strategy, gradients, variables):
    """Applies gradients that are summed and clipped already.

    Args:
        optimizer: A Keras optimizer, built.
        strategy: The strategy, in whose cross-replica context this is called.
        gradients: Gradients, equal on every replica.
        variables: What they are gradients of.
    """
    with _without_clipping(optimizer), _without_merge_call(strategy):
        optimizer.apply(gradients, variables)


@contextlib.contextmanager
def _without_clipping(optimizer):
    limits = {name: getattr(optimizer, name) for name in OPTIMIZER_NAMES}
    for name in limits:
        setattr(optimizer, name, None)
    try:
        yield
    finally:
        for name, limit in limits.items():
            setattr(optimizer, name, limit)


@contextlib.contextmanager
def _without_merge_call(strategy):
    """Keras asks for a merge call unless a strategy can do without one.

    In the cross-replica context there is nothing left to merge. Only there can
    an update depend on a condition, which is why it happens there.
    """
    strategy.extended._use_merge_call = lambda: False
    try:
        yield
    finally:
        del strategy.extended._use_merge_call
