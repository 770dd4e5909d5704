"""Sums over planes that stay fast when XLA compiles for a CPU.

The results equal those of `ops.sum`. Only this module depends on the compiler
and the device.
"""

import math

import keras
from keras import ops

from keras_norm import _keras_internals

# Planes with fewer values than this are summed directly.
MIN_PLANE_SIZE = 16
MAX_SLABS = 14


def plane_sums(terms, tensors, axes):
    """Sums elementwise functions of tensors over `axes` in one pass.

    Args:
        terms: Elementwise `f(*tensors)` that gives a list of tensors.
        tensors: List of tensors `(N, H, W, C)`, or `(N, H, W, 1)`.
        axes: Tuple of the axes to sum over, `(1, 2)` for planes. May be empty.

    Returns:
        List of tensors `(N, 1, 1, C)`.
    """
    if not axes:
        return list(terms(*tensors))
    sizes = [tensors[0].shape[axis] or 0 for axis in axes]
    if math.prod(sizes) > 0 and _keras_internals.is_compiled_for_cpu(
        tensors[0]
    ):
        return _sums_on_xla_cpu(terms, tensors, axes, sizes)
    return [
        ops.sum(value, axis=axes, keepdims=True) for value in terms(*tensors)
    ]


def materialize(planes):
    """Materializes values of planes so that XLA does not recompute them.

    XLA on a CPU fuses what makes the factor of a plane into the loop over its
    positions, roots and divisions at each; into a product it fuses nothing.
    RBN, forward and backward at (32, 14, 14, 1024): 10.8 ms instead of 11.7 ms
    (`benchmarks/plane_sums.py`).

    Args:
        planes: List of tensors `(N, 1, 1, C)` or `(1, 1, 1, C)`.

    Returns:
        List of the same tensors.
    """
    is_slow = planes and _keras_internals.is_compiled_for_cpu(planes[0])
    return [_times_one(p) for p in planes] if is_slow else planes


def _times_one(planes):
    shape = ops.shape(planes)
    row = ops.reshape(planes, (shape[0], 1, -1))
    # With a row of zeros, or XLA would see that there is nothing to multiply.
    rows = ops.concatenate([row, ops.zeros_like(row)], axis=1)
    return ops.reshape(_multiply_ones(rows, (shape[0], 1, 2)), shape)


def _sums_on_xla_cpu(terms, tensors, axes, sizes):
    """Sums without XLA's own, which it runs as a scalar loop on a CPU.

    It does so for a sum of anything but a stored tensor. Instead slabs of a
    plane are added to one another, as vectors; the rest is a product with a
    row of ones, into which XLA fuses nothing; and two sums use one pass as
    the parts of a complex number. `benchmarks/plane_sums.py`, two cores, at
    (32, 56, 56, 256), where a copy takes 9.0 ms: the sum of squares 5.9 ms
    instead of 30.4 ms, two sums for a gradient 11.8 ms instead of 40.6 ms.
    """
    sizes = dict(zip(axes, sizes, strict=True))
    return _unpack(_packed_sums(terms, tensors, axes, sizes))


def _packed_sums(terms, tensors, axes, sizes):
    axis = max(axes, key=sizes.get)
    num_slabs = _num_slabs(sizes[axis], math.prod(sizes.values()))
    length = sizes[axis] // num_slabs
    total = None
    for start in range(0, num_slabs * length, length):
        slabs = _slabs(tensors, axis, start, start + length)
        values = _pack(terms(*slabs))
        total = values if total is None else _add(total, values)
    total = [_sum_by_product(value, axes) for value in total]
    rest = sizes[axis] - num_slabs * length
    if rest:
        slabs = _slabs(tensors, axis, sizes[axis] - rest, sizes[axis])
        left = _packed_sums(terms, slabs, axes, {**sizes, axis: rest})
        total = _add(total, left)
    return total


def _num_slabs(size, plane_size):
    """Returns the number of equal slabs: a divisor of `size` if possible."""
    if plane_size < MIN_PLANE_SIZE:
        return 1
    most = min(size, MAX_SLABS)
    divisor = max(n for n in range(1, most + 1) if size % n == 0)
    return divisor if 2 * divisor >= most else most


def _slabs(tensors, axis, start, stop):
    index = (slice(None),) * axis + (slice(start, stop),)
    return [x[index] for x in tensors]


def _add(left, right):
    return [a + b for a, b in zip(left, right, strict=True)]


def _sum_by_product(value, axes):
    """Sums over `axes` by a product with a row of ones."""
    shape = ops.shape(value)
    rank = len(shape)
    kept = [axis for axis in range(1, rank) if axis not in axes]
    if kept != list(range(rank - len(kept), rank)):
        value = ops.transpose(value, (0, *axes, *kept))
    size = math.prod(shape[axis] for axis in axes)
    value = ops.reshape(value, (shape[0], size, -1))
    total = _multiply_ones(value, (shape[0], 1, size))
    return ops.reshape(
        total, [1 if axis in axes else n for axis, n in enumerate(shape)]
    )


def _multiply_ones(value, shape):
    if keras.backend.backend() == "jax":
        from jax import numpy as jnp

        ones = jnp.ones(shape, value.dtype)
        return jnp.matmul(ones, value, precision="highest")
    import tensorflow as tf

    return tf.matmul(tf.ones(shape, value.dtype), value)


def _pack(values):
    """Packs pairs of real tensors into complex ones; one may remain."""
    pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
    return [_complex(*pair) if len(pair) == 2 else pair[0] for pair in pairs]


def _unpack(values):
    parts = []
    for value in values:
        is_pair = "complex" in keras.backend.standardize_dtype(value.dtype)
        parts += [ops.real(value), ops.imag(value)] if is_pair else [value]
    return parts


def _complex(real, imag):
    if keras.backend.backend() == "jax":
        from jax import lax

        return lax.complex(real, imag)
    import tensorflow as tf

    return tf.complex(real, imag)
