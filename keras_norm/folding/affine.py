"""Affine functions of features, and those that norms compute at inference."""

import dataclasses

import numpy as np
from keras import ops

from keras_norm import variables
from keras_norm.conversion import layer_predicates
from keras_norm.layers._moving_moments import MovingMomentsLayer


class NotFoldableError(Exception):
    """A batch normalization cannot be folded; its message is the reason."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """The function `factor * x + offset`, in float64.

    Both arrays have one axis for each axis of `x` except the batch, of size 1
    where all values along that axis are equal.
    """

    factor: np.ndarray
    offset: np.ndarray

    @property
    def axes(self):
        """Set of the axes, without the batch, along which values differ."""
        shape = np.broadcast_shapes(self.factor.shape, self.offset.shape)
        return {axis for axis, size in enumerate(shape) if size > 1}

    @property
    def adds_nothing(self):
        """True if the offset is zero everywhere."""
        return not self.offset.any()

    def along(self, axis, size):
        """Returns `(factor, offset)` as vectors along the only axis.

        Raises:
            NotFoldableError: if values differ along another axis.
        """
        if self.axes - {axis}:
            raise NotFoldableError(
                "its factors differ from position to position"
            )
        return tuple(
            np.broadcast_to(array.reshape(-1), (size,))
            for array in (self.factor, self.offset)
        )

    def map(self, function):
        """Applies a function to both arrays and compacts the results."""
        return Affine(
            compact(function(self.factor)), compact(function(self.offset))
        )

    def inside(self):
        """Returns the function of each position along the first axis.

        Raises:
            NotFoldableError: if values differ along that axis.
        """
        if 0 in self.axes:
            raise NotFoldableError(
                "its factors differ from position to position"
            )
        return Affine(self.factor[0], self.offset[0])

    def outside(self):
        """Returns the function that applies this one along a first axis."""
        return Affine(self.factor[None], self.offset[None])

    def after(self, first):
        """Returns the affine function that applies `first`, then this one."""
        return Affine(
            self.factor * first.factor,
            self.factor * first.offset + self.offset,
        )


def along_axis(factor, offset, axis, rank):
    """Returns the `Affine` of two vectors along an axis.

    Args:
        factor: Array of one value per channel.
        offset: As `factor`.
        axis: The channel axis, without the batch.
        rank: Number of axes, without the batch.
    """
    shape = [1] * rank
    shape[axis] = -1
    return Affine(
        compact(np.reshape(factor, shape)), compact(np.reshape(offset, shape))
    )


def compact(array):
    """Reduces each axis to size 1 along which all values are equal."""
    array = np.asarray(array, "float64")
    for axis in range(array.ndim):
        first = np.take(array, [0], axis)
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def folds_when_constant(layer):
    """Returns True for norms that fold if their weights allow it.

    These are the batch normalizations of Keras and of this package, and the
    layers with moving moments whose other terms vanish for weights of zero.
    """
    if layer_predicates.is_batch_norm(layer):
        return True
    return (
        isinstance(layer, MovingMomentsLayer)
        and type(layer).call.__module__.startswith("keras_norm.layers.")
        and getattr(layer, "moving_mean", None) is not None
    )


def norm_vectors(layer, values=None):
    """Returns a norm's factor and offset at inference, one per channel.

    With the weights of the layer, the factor is
    `gamma * R / sqrt(moving_variance + epsilon)` and the offset
    `beta - moving_mean * factor`, where `R` is the factor of a calibration
    that does not depend on the input, else 1.

    Args:
        layer: A layer that `folds_when_constant` accepts.
        values: Dict of float64 arrays that replace weights of the layer, by
            name.

    Raises:
        NotFoldableError: if inference depends on the statistics of the input.
    """
    values = {
        **{
            v.name: variables.read_copy(v).astype("float64")
            for v in layer.variables
        },
        **(values or {}),
    }
    for name in getattr(layer, "neutral_at_zero", ()):
        if name in values and values[name].any():
            raise NotFoldableError(
                f"its {name} is not zero: it depends on each example"
            )
    factor = 1.0 / np.sqrt(values["moving_variance"] + layer.epsilon)
    factor = factor * values.get("gamma", 1.0) * _calibration(layer, values)
    offset = values.get("beta", 0.0) - values["moving_mean"] * factor
    return factor, offset


def _calibration(layer, values):
    if "scale_bias" not in values:
        return 1.0
    bias = ops.convert_to_tensor(values["scale_bias"].astype("float32"))
    level = ops.convert_to_numpy(layer.restriction(bias)).astype("float64")
    return level
