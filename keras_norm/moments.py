"""Moments of planes, of groups of channels and of batches.

Shapes, for a feature map of `N` examples and `C` channels (channels last):

    x          (N, H, W, C)
    per plane  (N, 1, 1, C)   one value per example and channel
    per batch  (1, 1, 1, C)   one value per channel

Every function works for any rank and any channel axis: reduced axes are kept
with length 1, so that the results broadcast against `x`.
"""

import math

import keras
from keras import ops

from keras_norm import fused_ops
from keras_norm._xla_cpu import plane_sums


def widened_dtype(dtype):
    """Returns float64 for float64 and float32 for every other dtype."""
    dtype = keras.backend.standardize_dtype(dtype)
    # `keras.backend.result_type` makes float32 of both on JAX and torch.
    return dtype if dtype == "float64" else "float32"


def widen(x):
    """Converts to a tensor of float64 if `x` is float64, else of float32.

    In narrower dtypes counts are rounded and sums overflow.
    """
    x = ops.convert_to_tensor(x)
    return ops.cast(x, widened_dtype(x.dtype))


def plane_count(x, axes):
    """Returns the number of values in a plane: a float, or a tensor."""
    sizes = [x.shape[axis] for axis in axes]
    if None not in sizes:
        return float(math.prod(sizes))
    shape = ops.shape(x)
    count = 1
    for axis in axes:
        count = count * shape[axis]
    return ops.cast(count, x.dtype)


def zero_invalid(x, valid):
    """Replaces values of `x` by zero if `valid` is False, NaN included."""
    return x if valid is None else ops.where(valid, x, ops.zeros_like(x))


def valid_count(x, axes, valid=None):
    """Counts the valid values of every plane, `(N, 1, 1, 1)`."""
    if valid is None:
        shape = (ops.shape(x)[0], *(1 for _ in x.shape[1:]))
        return ops.ones(shape, x.dtype) * plane_count(x, axes)
    valid = ops.cast(valid, x.dtype)
    return ops.sum(valid, axis=axes, keepdims=True) if axes else valid


def plane_moments(x, axes, valid=None):
    """Computes mean and biased variance of every plane in one pass.

    The mean of a few rows is subtracted before squaring: the mean of n of N
    values is at most sqrt(N / n) standard deviations from the mean of all, so
    the rounding error grows at most N / n times if the mean is large compared
    with the spread.

    Args:
        x: Tensor `(N, H, W, C)`.
        axes: Tuple of the axes of a plane. May be empty.
        valid: Boolean tensor that broadcasts against `x`, or None.

    Returns:
        `(mean, variance, count)`: two tensors `(N, 1, 1, C)` and the number of
        values behind them, `(N, 1, 1, 1)`.
    """
    x = widen(x)
    count = valid_count(x, axes, valid)
    if not axes:
        x = zero_invalid(x, valid)
        return x, ops.zeros_like(x), count
    divisor = ops.maximum(count, 1.0)
    shift = ops.stop_gradient(_near_mean(x, axes, valid, divisor))
    if valid is not None:
        valid = ops.cast(valid, x.dtype)
    sums = fused_ops.shifted_sums(x, shift, axes, valid)
    deviation, variance = (s / divisor for s in sums)
    variance = variance - ops.square(deviation)
    positive = variance > 0
    variance = ops.where(positive, variance, ops.zeros_like(variance))
    return shift + deviation, variance, count


def _near_mean(x, axes, valid, count):
    """Averages some rows of every plane, or all `count` valid values."""
    if valid is not None:
        rows = zero_invalid(x, valid)
    else:
        size = x.shape[axes[0]] or 1
        length = -(-size // 32)
        start = (size - length) // 2
        rows = x[(slice(None),) * axes[0] + (slice(start, start + length),)]
        count = plane_count(rows, axes)
    (total,) = plane_sums(lambda x: [x], [rows], axes)
    return total / count


def plane_mean_square(x, axes, valid=None):
    """Computes `mean(x^2)` of every plane (FRN, equation 1).

    Args:
        x: Tensor `(N, H, W, C)`.
        axes: Tuple of the axes of a plane.
        valid: Boolean tensor that broadcasts against `x`, or None.

    Returns:
        Tensor `(N, 1, 1, C)`.
    """
    x = widen(x)
    if valid is None:
        count = plane_count(x, axes)
    else:
        count = ops.maximum(valid_count(x, axes, valid), 1.0)
        x = zero_invalid(x, valid)
    return fused_ops.mean_square(x, axes, count)


def group_mean(planes, groups):
    """Averages over each group of channels; returns `(N, 1, 1, C)`."""
    shape = ops.shape(planes)
    num_channels = math.prod(planes.shape[1:])
    size = num_channels // groups
    grouped = ops.reshape(planes, (shape[0], groups, size))
    # On JAX and torch `ops.mean` has the digits of float32 only.
    mean = ops.sum(grouped, axis=2, keepdims=True) / size
    return ops.reshape(mean + ops.zeros_like(grouped), shape)


def group_moments(mean, variance, groups):
    """Computes moments of groups of channels from moments of planes.

    Args:
        mean: Tensor `(N, 1, 1, C)`.
        variance: Tensor `(N, 1, 1, C)`.
        groups: Integer that divides `C`.

    Returns:
        Two tensors `(N, 1, 1, C)`.
    """
    center = group_mean(mean, groups)
    spread = variance + ops.square(mean - center)
    return center, group_mean(spread, groups)


def batch_moments(means, variances, counts, all_reduce_sum=None):
    """Computes mean and biased variance of a batch from moments of planes.

        mean     = sum(count * mean_i) / sum(count)
        variance = sum(count * (variance_i + (mean_i - mean)^2)) / sum(count)

    Args:
        means: Tensor `(N, 1, 1, C)`.
        variances: Tensor `(N, 1, 1, C)`.
        counts: Tensor `(N, 1, 1, 1)`.
        all_reduce_sum: Function that sums a list of tensors over replicas, for
            the moments of the global batch; None for this replica only.

    Returns:
        `(mean, variance, count)`: two tensors `(1, 1, 1, C)` and the number of
        values per channel, `(1, 1, 1, 1)`. All zero for an empty batch.
    """
    reduce = all_reduce_sum or (lambda values: values)
    count, total = reduce([batch_sum(counts), batch_sum(counts * means)])
    divisor = ops.maximum(count, 1.0)
    mean = total / divisor
    spread = batch_sum(counts * (variances + ops.square(means - mean)))
    (spread,) = reduce([spread])
    return mean, spread / divisor, count


def batch_sum(x):
    """Sums over the examples, `(N, ...)` to `(1, ...)`."""
    return ops.sum(x, axis=0, keepdims=True)


def plane_std(variance):
    """Computes `sqrt(variance)` with gradient 0 if the variance is 0."""
    positive = variance > 0
    root = ops.sqrt(ops.where(positive, variance, ops.ones_like(variance)))
    return ops.where(positive, root, ops.zeros_like(root))
