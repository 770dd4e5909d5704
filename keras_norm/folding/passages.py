"""Operations that an affine function passes through, in either direction.

An operation `f` passes it if `f(affine(x)) = affine'(f(x))`. `to_output`
returns `affine'` for `affine`, `to_inputs` the reverse.
"""

import keras
import numpy as np
from keras import layers

from keras_norm.conversion import layer_predicates
from keras_norm.folding.affine import Affine
from keras_norm.folding.affine import NotFoldableError
from keras_norm.folding.time_distributed import InnerCall
from keras_norm.folding.time_distributed import is_time_distributed


def _classes(pattern, ranks="123"):
    names = [pattern.format(rank) for rank in ranks]
    return tuple(
        getattr(layers, name) for name in names if hasattr(layers, name)
    )


_MAX_POOLING = _classes("MaxPooling{}D")
_GLOBAL_MAX = _classes("GlobalMaxPooling{}D")
_GLOBAL_AVERAGE = _classes("GlobalAveragePooling{}D")
_WINDOWS = (
    *_MAX_POOLING,
    *_classes("AveragePooling{}D"),
    *_classes("Cropping{}D"),
    *_classes("UpSampling{}D"),
)
_NOISE = (
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.AlphaDropout,
    layers.Dropout,
    *_classes("SpatialDropout{}D"),
)
_AFFINE_UPSAMPLING = ("nearest", "bilinear")
ZERO_PADDING = _classes("ZeroPadding{}D")
# Operations on several branches that are linear in all of them.
_SUMS = ("Add", "Subtract", "Average")


def to_output(call, index, affine, is_training):
    """Moves an affine function of an input to the output.

    Args:
        call: The `Call` of the operation.
        index: Which of its inputs.
        affine: `Affine` of that input.
        is_training: True if it runs in training mode.

    Returns:
        The `Affine` of the output, or None if the operation passes none.

    Raises:
        NotFoldableError: if it passes others, but not this one.
    """
    operation = call.operation
    if is_time_distributed(operation):
        result = to_output(InnerCall(call), index, affine.inside(), is_training)
        return None if result is None else result.outside()
    if type(operation) is layers.Concatenate:
        return _concatenate(call, index, affine)
    if not _passes(call, is_training):
        return None
    _check(call, affine)
    if _is_identity(operation) or type(operation) in _WINDOWS:
        return affine
    rearrange = _rearrangement(call)
    return affine.map(rearrange)


def to_inputs(call, affine, is_training):
    """Moves an affine function of the output to the inputs.

    Returns:
        List of `Affine` or None, one for each input; None if the operation
        passes no affine function.

    Raises:
        NotFoldableError: as `to_output`.
    """
    operation = call.operation
    if is_time_distributed(operation):
        parts = to_inputs(InnerCall(call), affine.inside(), is_training)
        return None if parts is None else [part.outside() for part in parts]
    if type(operation) is layers.Concatenate:
        return _split(call, affine)
    if _is_sum(call):
        first = affine
        if type(operation) is not layers.Average:
            # One branch takes the whole offset.
            rest = Affine(affine.factor, np.zeros_like(affine.offset))
        else:
            rest = affine
        return [first] + [rest] * (len(call.input_shapes) - 1)
    if not _passes(call, is_training):
        return None
    _check(call, affine)
    if _is_identity(operation) or type(operation) in _WINDOWS:
        return [affine]
    return [affine.map(_rearrangement(call, back=True))]


def _passes(call, is_training):
    operation = call.operation
    kind = type(operation)
    if kind in _NOISE:
        return not is_training
    return (
        _is_identity(operation)
        or kind in (*_WINDOWS, *_GLOBAL_MAX, *_GLOBAL_AVERAGE)
        or kind in (layers.Flatten, layers.Reshape, layers.Permute)
        or kind is layers.RepeatVector
    )


def _is_identity(operation):
    return type(operation) in _NOISE or layer_predicates.is_identity(operation)


def _is_sum(call):
    name = type(call.operation).__name__
    is_sum = name in _SUMS and (
        isinstance(call.operation, keras.layers.Layer)
        and type(call.operation) is getattr(layers, name)
        or layer_predicates.is_addition(call.operation, len(call.input_shapes))
    )
    return is_sum and all(
        shape == call.output_shape for shape in call.input_shapes
    )


def _check(call, affine):
    """Raises an error if the operation does not pass this affine function."""
    operation, kind = call.operation, type(call.operation)
    if kind in (*_MAX_POOLING, *_GLOBAL_MAX) and (affine.factor < 0).any():
        raise NotFoldableError(
            f"a negative factor does not pass {call.describe()}"
        )
    if call.argument("mask") is not None and kind in _GLOBAL_AVERAGE:
        raise NotFoldableError(f"{call.describe()} has a mask")
    interpolation = getattr(operation, "interpolation", "nearest")
    if interpolation not in _AFFINE_UPSAMPLING:
        raise NotFoldableError(
            f"{call.describe()} interpolates by {interpolation}"
        )
    if kind in _WINDOWS and affine.axes & spatial_axes(
        operation, len(call.output_shape)
    ):
        raise NotFoldableError("its factors differ from position to position")


def spatial_axes(operation, rank):
    """Returns the set of the axes of positions, without the batch.

    Args:
        operation: A layer with `data_format`.
        rank: Number of axes of its input, without the batch.
    """
    first = getattr(operation, "data_format", None) == "channels_first"
    return set(range(1, rank) if first else range(rank - 1))


def _rearrangement(call, back=False):
    """Returns a function that rearranges arrays as the operation does.

    Args:
        call: The `Call` of a layer that rearranges or averages positions.
        back: If True, the function goes from the output to the input.
    """
    operation, kind = call.operation, type(call.operation)
    source, target = call.input_shapes[0], call.output_shape
    if kind is layers.Permute:
        order = [axis - 1 for axis in operation.dims]
        order = np.argsort(order) if back else order
        return lambda array: np.transpose(array, order)
    if kind is layers.RepeatVector:
        if back:
            return lambda array: _only(array, {0})[0]
        return lambda array: array[None]
    if kind in (*_GLOBAL_MAX, *_GLOBAL_AVERAGE):
        axes = spatial_axes(operation, len(source))
        shape = [1 if i in axes else -1 for i in range(len(source))]
        if back:
            return lambda array: array.reshape(shape)
        if operation.keepdims:
            return lambda array: _only(array, axes)
        return lambda array: _only(array, axes).reshape(-1)
    transposes = (
        kind is layers.Flatten
        and operation.data_format == "channels_first"
        and len(source) > 1
    )
    order = [*range(1, len(source)), 0] if transposes else range(len(source))
    middle = tuple(source[axis] for axis in order)
    if back:
        inverse = np.argsort(list(order))
        return lambda array: np.transpose(
            _reshape(array, target, middle), inverse
        )
    return lambda array: _reshape(np.transpose(array, order), middle, target)


def _reshape(array, source, target):
    """Reshapes an array with axes of size 1 from one shape to another."""
    if array.size == 1:
        return array.reshape((1,) * len(target))
    is_last = array.shape[-1] == array.size
    if is_last and source[-1] == target[-1]:
        return array.reshape((1,) * (len(target) - 1) + (-1,))
    if None in source or None in target:
        raise NotFoldableError("its channels are mixed with unknown sizes")
    return np.broadcast_to(array, source).reshape(target)


def _only(array, axes):
    if any(array.shape[axis] > 1 for axis in axes):
        raise NotFoldableError("its factors differ from position to position")
    return array


def _concatenate(call, index, affine):
    """Returns the affine function of a concatenation with one changed input."""
    axis, sizes = _concatenation(call)
    shape = list(affine.factor.shape)
    parts = []
    for array, neutral in ((affine.factor, 1.0), (affine.offset, 0.0)):
        shape = list(np.broadcast_shapes(array.shape))
        shape[axis] = sizes[index]
        array = np.broadcast_to(array, shape)
        pieces = [
            array
            if i == index
            else np.full(
                [size if j == axis else n for j, n in enumerate(shape)],
                neutral,
            )
            for i, size in enumerate(sizes)
        ]
        parts.append(np.concatenate(pieces, axis))
    return Affine(*parts).map(lambda array: array)


def _split(call, affine):
    axis, sizes = _concatenation(call)
    bounds = np.cumsum(sizes)[:-1]

    def split(array):
        if array.shape[axis] == 1:
            return [array] * len(sizes)
        return np.split(array, bounds, axis)

    return [
        Affine(factor, offset).map(lambda array: array)
        for factor, offset in zip(
            split(affine.factor), split(affine.offset), strict=True
        )
    ]


def _concatenation(call):
    """Returns the axis, without the batch, and the sizes along it."""
    rank = len(call.output_shape)
    axis = call.operation.axis
    axis = axis - 1 if axis > 0 else axis + rank
    sizes = [shape[axis] for shape in call.input_shapes]
    if axis < 0 or None in sizes:
        raise NotFoldableError(
            f"{call.describe()} joins examples or an unknown size"
        )
    return axis, sizes
