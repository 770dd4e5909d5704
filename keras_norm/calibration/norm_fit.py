"""Fits the weights of a new norm to the outputs of a batch normalization."""

import dataclasses

import numpy as np
from keras import ops

from keras_norm import _keras_internals
from keras_norm import variables
from keras_norm.calibration.annealing import assign_epsilon
from keras_norm.calibration.channel_fit import ChannelFit
from keras_norm.graphs.program import inference
from keras_norm.layers.frn import FRN

# Epsilon of FRN on maps of one value, relative to their mean square: a small
# one makes the layer sign(x).
SINGLE_VALUE_RATIO = 100.0


@dataclasses.dataclass(frozen=True)
class NormFit:
    """Result of the calibration of one norm.

    Attributes:
        path: Path of the layer.
        explained_before: Share of the variance of the batch normalization's
            output that the new layer explains with copied weights.
        explained_after: The same after calibration.
        epsilon_ratio: Epsilon of FRN, relative to the mean square of a
            channel's input; None for other layers.
        num_constant: Number of channels that are constant on all examples.
    """

    path: str
    explained_before: float
    explained_after: float
    epsilon_ratio: float | None = None
    num_constant: int = 0


class NormFitter:
    """Assigns gamma and beta by least squares, and FRN's epsilon before that.

    With `z` the layer's output for `gamma = 1` and `beta = 0`, and `t` the
    target, each channel's gamma and beta minimize

        mean((gamma z + beta - t)^2)

    over all calls, examples and positions that no mask excludes.

    Args:
        layer: The new layer, built.
        path: Path of the layer, for the result.
        options: The `Options` of the calibration.

    Attributes:
        epsilon_ratio: FRN's final epsilon relative to the mean square of a
            channel's input; None for other layers.
        mean_square: Mean of FRN's `nu2` over examples, an array `(C,)`, if it
            has a learned epsilon.
    """

    def __init__(self, layer, path, options):
        self.layer = layer
        self.path = path
        self.options = options
        self.epsilon_ratio = 0.0 if isinstance(layer, FRN) else None
        self.mean_square = None
        self.gamma, self.beta = (
            next((v for v in layer.variables if v.name == name), None)
            for name in ("gamma", "beta")
        )
        self.sums = None
        self.explained_before = None

    def add_call(self, batches, targets, axis):
        """Fits the layer to one of its calls, and to the calls before.

        Args:
            batches: List of `(args, kwargs)`, one for each batch.
            targets: List of tensors, outputs of the batch normalization.
            axis: The channel axis, at least 0.
        """
        num_channels = targets[0].shape[axis]
        if self.sums is None:
            copied = ChannelFit(num_channels)
            self._add(copied, batches, targets, axis)
            self.explained_before = copied.explained_variance(1.0, 0.0)
            if _learns_epsilon(self.layer):
                self._set_epsilon(batches)
            self.sums = ChannelFit(
                num_channels, self.gamma is not None, self.beta is not None
            )
        self._assign(np.ones(num_channels), np.zeros(num_channels))
        self._add(self.sums, batches, targets, axis)
        self._assign(*self.sums.solve())

    def result(self):
        """Returns the `NormFit`."""
        return NormFit(
            self.path,
            self.explained_before,
            self.sums.explained_variance(*self.sums.solve()),
            self.epsilon_ratio,
            self.sums.num_constant if self.gamma is not None else 0,
        )

    def _set_epsilon(self, calls):
        """Sets FRN's learned epsilon relative to the mean square."""
        layer = self.layer
        squares = [
            layer.mean_square(args[0], _mask(args, kwargs))
            for args, kwargs in calls
        ]
        self.mean_square = np.concatenate(squares).mean(axis=0)
        self.epsilon_ratio = self.options.epsilon_ratio
        if layer.sees_single_values:
            self.epsilon_ratio = max(self.epsilon_ratio, SINGLE_VALUE_RATIO)
        ratio = max(self.options.first_ratio, self.epsilon_ratio)
        assign_epsilon(layer, ratio * self.mean_square)

    def _add(self, sums, batches, targets, axis):
        for (args, kwargs), target in zip(batches, targets, strict=True):
            with inference():
                output = self.layer(*args, **kwargs)
            valid = _valid_rows(_mask(args, kwargs), target, axis)
            sums.add(to_rows(output, axis), to_rows(target, axis), valid)

    def _assign(self, scale, offset):
        if self.gamma is not None:
            variables.assign_copy(self.gamma, scale)
        if self.beta is not None:
            variables.assign_copy(self.beta, offset)


def _learns_epsilon(layer):
    return isinstance(layer, FRN) and layer.learned_epsilon is not None


def to_rows(tensor, axis):
    """Returns a tensor as a float64 array `(rows, channels)`."""
    array = ops.convert_to_numpy(ops.cast(tensor, "float32"))
    array = np.moveaxis(array, axis, -1)
    return array.reshape(-1, array.shape[-1]).astype("float64")


def _mask(args, kwargs):
    mask = kwargs.get("mask")
    return _keras_internals.get_mask(args[0]) if mask is None else mask


def _valid_rows(mask, target, axis):
    """Returns a boolean array of the rows that count, or None for all."""
    if mask is None:
        return None
    mask = ops.convert_to_numpy(mask).astype(bool)
    shape = list(target.shape)
    del shape[axis]
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(mask, shape).ravel()
