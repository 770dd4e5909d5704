"""Clips gradients that were summed over replicas."""

import tensorflow as tf

# Arguments of Keras' optimizers and of `ReplicaModel`.
OPTIMIZER_NAMES = {
    "clipnorm": "clip_norm",
    "global_clipnorm": "clip_global_norm",
    "clipvalue": "clip_value",
}


def clip_gradients(
    gradients, clip_norm=None, clip_global_norm=None, clip_value=None
):
    """Clips gradients in at most one way.

    Args:
        gradients: List of tensors, already summed over replicas.
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
    """Raises an error for invalid limits.

    Args:
        settings: Dict of the arguments of `clip_gradients`.

    Raises:
        ValueError: for a limit that is not positive, or more than one limit.
    """
    given = {k: v for k, v in settings.items() if v is not None}
    received = ", ".join(f"{k}={v}" for k, v in given.items())
    if len(given) > 1:
        raise ValueError(
            "Pass only one of clip_norm, clip_global_norm and clip_value. "
            f"Received: {received}"
        )
    if any(value <= 0 for value in given.values()):
        raise ValueError(
            f"The limit of gradient clipping must be positive. Received: "
            f"{received}"
        )


def optimizer_limits(optimizer):
    """Returns a Keras optimizer's limits as arguments of `clip_gradients`."""
    limits = {
        ours: getattr(optimizer, theirs, None)
        for theirs, ours in OPTIMIZER_NAMES.items()
    }
    return {name: value for name, value in limits.items() if value is not None}
