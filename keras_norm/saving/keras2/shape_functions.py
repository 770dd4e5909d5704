"""Functions that change shapes, as TensorFlow computes them."""

import numpy as np
from keras import ops

from keras_norm.saving.keras2.math_functions import UnsupportedArgument
from keras_norm.saving.keras2.math_functions import cast_like
from keras_norm.saving.keras2.math_functions import is_tensor


def _concat(values, axis):
    return ops.concatenate(list(values), axis=axis)


def _expand_dims(x, axis=None, dim=None):
    return ops.expand_dims(x, axis=dim if axis is None else axis)


def _flip(x, axis):
    return ops.flip(x, axis=tuple(axis) if isinstance(axis, list) else axis)


def _gather(x, indices, axis=None, batch_dims=0):
    if batch_dims:
        raise UnsupportedArgument(f"batch_dims={batch_dims}")
    if not is_tensor(indices):
        indices = np.asarray(indices, "int32")
    return ops.take(x, indices, axis=0 if axis is None else axis)


def _getitem(x, slice_spec):
    return x[tuple(_slice(item) for item in slice_spec)]


def _slice(item):
    if isinstance(item, dict):
        if item.get("class_name") == "__ellipsis__":
            return Ellipsis
        if item.get("class_name") == "__slice__":
            item = item["config"]
        return slice(item["start"], item["stop"], item["step"])
    return item


def _one_hot(x, depth, on_value=None, off_value=None, axis=-1, dtype="float32"):
    if on_value not in (None, 1, 1.0) or off_value not in (None, 0, 0.0):
        raise UnsupportedArgument("other values than 1 and 0")
    return ops.one_hot(
        x, depth, axis=-1 if axis is None else axis, dtype=dtype or "float32"
    )


def _pad(x, paddings, mode="CONSTANT", constant_values=0):
    mode = mode.lower()
    value = {"constant_values": constant_values} if mode == "constant" else {}
    return ops.pad(x, [tuple(pair) for pair in paddings], mode, **value)


def _pool(function):
    def pool(x, ksize, strides, padding, data_format="NHWC"):
        channels_first = str(data_format).startswith("NC")
        rank = len(x.shape)
        start = 2 if channels_first else 1

        def spatial(size):
            if isinstance(size, list | tuple):
                size = size if len(size) < rank else size[start:][: rank - 2]
                return tuple(size) if len(size) > 1 else size[0]
            return size

        return function(
            x,
            spatial(ksize),
            strides=spatial(strides),
            padding=padding.lower(),
            data_format="channels_first" if channels_first else "channels_last",
        )

    return pool


def _reshape(x, shape):
    if not all(isinstance(size, int) for size in shape):
        raise UnsupportedArgument("a shape that depends on the inputs")
    return ops.reshape(x, tuple(shape))


def _resize(
    x, size, method="bilinear", preserve_aspect_ratio=False, antialias=False
):
    if preserve_aspect_ratio or method not in (
        "bilinear",
        "nearest",
        "bicubic",
    ):
        raise UnsupportedArgument(f"method={method}")
    dtype = x.dtype if method == "nearest" else "float32"
    return ops.image.resize(
        x if method == "nearest" else cast_like(x, dtype),
        tuple(size),
        interpolation=method,
        antialias=antialias,
        data_format="channels_last",
    )


def _space(x, block_size, data_format="NHWC", to_depth=True):
    """Moves blocks of an image into its channels, or back."""
    _, height, width, channels = x.shape
    size = block_size
    if data_format != "NHWC" or None in (height, width, channels):
        raise UnsupportedArgument("images of unknown size")
    if to_depth:
        shape = -1, height // size, size, width // size, size, channels
        x = ops.transpose(ops.reshape(x, shape), (0, 1, 3, 2, 4, 5))
        return ops.reshape(
            x, (-1, height // size, width // size, channels * size**2)
        )
    shape = -1, height, width, size, size, channels // size**2
    x = ops.transpose(ops.reshape(x, shape), (0, 1, 3, 2, 4, 5))
    return ops.reshape(
        x, (-1, height * size, width * size, channels // size**2)
    )


def _depth_to_space(x, block_size, data_format="NHWC"):
    return _space(x, block_size, data_format, to_depth=False)


def _split(x, num_or_size_splits, axis=0, num=None):
    sizes = num_or_size_splits
    if isinstance(sizes, list):
        if -1 in sizes:
            rest = x.shape[axis] - sum(sizes) - 1
            sizes = [rest if size == -1 else size for size in sizes]
        sizes = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return ops.split(x, sizes, axis=axis)


def _squeeze(x, axis=None, squeeze_dims=None):
    axis = squeeze_dims if axis is None else axis
    if isinstance(axis, list | tuple):
        axis = tuple(axis) if len(axis) > 1 else axis[0] if axis else None
    return ops.squeeze(x, axis=axis)


def _stack(values, axis=0):
    return ops.stack(list(values), axis=axis)


def _tile(x, multiples):
    return ops.tile(x, tuple(multiples))


def _transpose(x, perm=None, conjugate=False):
    return ops.transpose(x, axes=perm)


def _unstack(x, num=None, axis=0):
    return ops.unstack(x, num, axis=axis)


FUNCTIONS = {
    "avg_pool": _pool(ops.average_pool),
    "avg_pool2d": _pool(ops.average_pool),
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flip_left_right": lambda x: ops.flip(x, axis=-2),
    "flip_up_down": lambda x: ops.flip(x, axis=-3),
    "gather": _gather,
    "getitem": _getitem,
    "max_pool": _pool(ops.max_pool),
    "max_pool2d": _pool(ops.max_pool),
    "one_hot": _one_hot,
    "pad": _pad,
    "reshape": _reshape,
    "resize": _resize,
    "reverse": _flip,
    "space_to_depth": _space,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
