"""Formulas on moments: corrections, mixtures, factors and offsets.

Shapes as in `moments`: values of planes `(N, 1, 1, C)`, of batches
`(1, 1, 1, C)`.
"""

import math

from keras import ops

FLOAT16_MAX = 65504.0


def scale_and_shift(x, center, factor, offset):
    """Computes `(x - center) * factor + offset`; None omits a step.

    The subtraction comes first: `x * factor + (offset - center * factor)`
    would lose digits if the mean is large compared with the spread.
    """
    if center is not None:
        x = x - center
    x = x * factor
    return x if offset is None else x + offset


def fold_affine(factor, offset, gamma, beta):
    """Folds `gamma * (x * factor + offset) + beta` into a factor and offset."""
    if gamma is not None:
        factor = factor * gamma
        offset = None if offset is None else offset * gamma
    if beta is not None:
        offset = beta if offset is None else offset + beta
    return factor, offset


def threshold(x, tau):
    """Computes `max(x, tau)`; ties and NaN select `x`, float64 stays.

    `ops.maximum` does neither everywhere: JAX splits the gradient of a tie, and
    torch makes float32 of float64.
    """
    return ops.where(x < tau, tau, x)


def cap(x, max_value):
    """Computes `min(x, max_value)` for a float; ties and NaN select `x`."""
    # As a tensor: torch would round a float to float32 first.
    top = ops.convert_to_tensor(max_value, x.dtype)
    return ops.where(x > top, top, x)


def renorm_correction(mean, variance, moving_mean, moving_std, epsilon, clip):
    """Computes Batch Renormalization corrections (Ioffe 2017, algorithm 1).

    Args:
        mean: Batch mean, `(1, 1, 1, C)`.
        variance: Batch variance, `(1, 1, 1, C)`.
        moving_mean: Moving mean, broadcastable to `mean`.
        moving_std: Moving standard deviation, broadcastable to `mean`.
        epsilon: Float.
        clip: Dict with any of `rmin`, `rmax`, `dmax`.

    Returns:
        `(r, d)`, constants to the gradient: `y = xhat * r + d`.
    """
    std = ops.sqrt(variance + epsilon)
    moving_std = threshold(moving_std, math.sqrt(epsilon))
    r = std / moving_std
    d = (mean - moving_mean) / moving_std
    if clip.get("rmin") is not None:
        r = threshold(r, clip["rmin"])
    if clip.get("rmax") is not None:
        r = -threshold(-r, -clip["rmax"])
    if clip.get("dmax") is not None:
        d = ops.clip(d, -clip["dmax"], clip["dmax"])
    return ops.stop_gradient(r), ops.stop_gradient(d)


def cast_finite(x, dtype):
    """Casts; finite values stay finite if float16 would overflow."""
    narrowed = ops.cast(x, dtype)
    if dtype != "float16" or x.dtype == narrowed.dtype:
        return narrowed
    limited = ops.cast(ops.clip(x, -FLOAT16_MAX, FLOAT16_MAX), dtype)
    return ops.where(ops.isfinite(x), limited, narrowed)


def mix_moments(mean, variance, moving_mean, moving_variance, a, b):
    """Computes the moments that EvalNorm evaluates with.

    Args:
        mean: Of every plane, `(N, 1, 1, C)`.
        variance: Of every plane, `(N, 1, 1, C)`.
        moving_mean: `(1, 1, 1, C)`.
        moving_variance: `(1, 1, 1, C)`.
        a: Scalar, weight of the plane's mean.
        b: Scalar, weight of the plane's variance.

    Returns:
        Two tensors `(N, 1, 1, C)`.
    """
    distance = mean - moving_mean
    spread = a * (1.0 - a) * ops.square(distance)
    return (
        moving_mean + a * distance,
        b * variance + (1.0 - b) * moving_variance + spread,
    )


def mix_gradient(
    mean,
    variance,
    batch_mean,
    batch_factor,
    moving_mean,
    moving_variance,
    a,
    b,
    epsilon,
):
    """Differentiates the gap between evaluation and training in `a` and `b`.

    Over the plane of an example, the mean squared difference of
    `(x - m) * s`, with the moments of `mix_moments` and
    `s = 1 / sqrt(v + epsilon)`, and of `(x - batch_mean) * batch_factor` is

        variance * (s - batch_factor)^2
        + (s * (mean - m) - batch_factor * (mean - batch_mean))^2

    Returns:
        Its derivatives in `a` and in `b`, `(N, 1, 1, C)`.
    """
    m, v = mix_moments(mean, variance, moving_mean, moving_variance, a, b)
    s = ops.rsqrt(v + epsilon)
    distance = mean - moving_mean
    levels = s * (mean - m) - batch_factor * (mean - batch_mean)
    to_s = 2.0 * (variance * (s - batch_factor) + levels * (mean - m))
    to_v = -0.5 * to_s * s * s * s
    to_m = -2.0 * levels * s
    to_a = to_m * distance + to_v * (1.0 - 2.0 * a) * ops.square(distance)
    return to_a, to_v * (variance - moving_variance)
