"""Applies a Keras optimizer once for all replicas."""

import contextlib

import keras

from keras_norm.training.clipping import OPTIMIZER_NAMES
from keras_norm.training.tf_internals import without_merge_call


def check_optimizer(optimizer):
    """Raises an error for an optimizer that repeats work of the step.

    Raises:
        ValueError: if it scales the loss or accumulates gradients.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "`ReplicaModel` scales the loss itself: pass the inner optimizer. "
            f"Received: optimizer={optimizer.name}"
        )
    if optimizer is not None and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "Pass `accumulation_steps` to `ReplicaModel` instead. Received: "
            "optimizer.gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}"
        )


def apply_gradients(optimizer, strategy, gradients, variables):
    """Applies gradients that are already summed and clipped.

    Call it in the cross-replica context.

    Args:
        optimizer: A Keras optimizer, built.
        strategy: The strategy of the variables.
        gradients: Gradients, equal on every replica.
        variables: The variables to update.
    """
    with _without_clipping(optimizer), without_merge_call(strategy):
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
