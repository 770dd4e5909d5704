"""Gradient clipping, of gradients that are whole already."""

import tensorflow as tf

# What Keras' optimizers call them, and what a `ReplicaModel` does.
OPTIMIZER_NAMES = {
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_global_norm",
    "clipvalue": "clip_value",
}


def clip_gradients(
    gradients, clip_norm=None, clip_global_norm=None, clip_value=None
):
    """The gradients, clipped in at most one way.

    Args:
        gradients: List of tensors, summed over replicas already.
        clip_norm: Largest L2 norm of each tensor.
        clip_global_norm: Largest L2 norm of all tensors together.
        clip_value: Largest absolute value.
    """
    if not gradients:
        return []
    if clip_norm is not None:
        return [tf.clip_by_norm(g, clip_norm) for g in gradients]
    if clip_global_norm is not None:
        return tf.clip_by_global_norm(gradients, clip_global_norm)[0]
    if clip_value is not None:
        return [tf.clip_by_value(g, -clip_value, clip_value) for g in gradients]
    return list(gradients)


def check_limits(settings):
    """Refuses what cannot clip.

    Args:
        settings: Dict of the arguments of `clip`.

    Raises:
        ValueError: for a limit that is not positive, and for more than one.
    """
    given = {k: v for k, v in settings.items() if v is not None}
    received = ", ".join(f"{k}={v}" for k, v in given.items())
    if len(given) > 1:
        raise ValueError(
            f"Gradients are clipped in one way at most. Received: {received}"
        )
    if any(value <= 0 for value in given.values()):
        raise ValueError(
            f"Gradients are clipped to a positive number. Received: {received}"
        )


def optimizer_limits(optimizer):
    """The limits that a Keras optimizer was given, as arguments of `clip`."""
    limits = {
        ours: getattr(optimizer, theirs, None)
        for theirs, ours in OPTIMIZER_NAMES.items()
    }
    return {name: value for name, value in limits.items() if value is not None}
