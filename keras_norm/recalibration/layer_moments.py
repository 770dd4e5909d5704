"""Moments of a normalization layer's input, and assigning them to it."""

import keras
import numpy as np
from keras import ops

from keras_norm import variables
from keras_norm.conversion.layer_predicates import is_batch_norm
from keras_norm.errors import ConversionError
from keras_norm.layers._moving_moments import MovingMomentsLayer
from keras_norm.recalibration.channel_moments import ChannelMoments
from keras_norm.recalibration.channel_moments import combine
from keras_norm.recalibration.channel_moments import plane_moments

# Scalars that mix an example's own moments with the moving ones.
MIXING_WEIGHTS = ("mean_mix", "variance_mix")


def has_statistics(layer):
    """Returns True for a layer with moving moments of its input's channels.

    These are batch normalization of Keras and of this package, also with Batch
    Renormalization or frozen, RBN with batch statistics, and EvalNorm. A
    subclass counts if it inherits `call`.
    """
    if getattr(layer, "moving_mean", None) is None:
        return False
    if not isinstance(layer, MovingMomentsLayer):
        return is_batch_norm(layer)
    package = __name__.partition(".")[0]
    return type(layer).call.__module__.startswith(f"{package}.layers.")


def mixes_moments(layer):
    """Returns True for a layer with `MIXING_WEIGHTS`."""
    return all(hasattr(layer, name) for name in MIXING_WEIGHTS)


class LayerMoments:
    """Moments of everything that a layer normalizes.

    Attributes:
        channels: The `ChannelMoments`.
        planes: List of `(mean, variance, count)`, each `(N, C)`, one for each
            batch; only for a layer that mixes moments.
    """

    def __init__(self, layer):
        self.layer = layer
        self.channels = ChannelMoments(int(layer.moving_mean.shape[0]))
        self.planes = []

    def add(self, inputs, mask):
        """Adds the values of a call.

        Args:
            inputs: Tensor, the input of the layer.
            mask: Boolean tensor or None.

        Returns:
            True if all of them are finite.
        """
        layer = self.layer
        if layer.autocast:
            inputs = ops.cast(inputs, layer.compute_dtype)
        x, valid = _channels_last(layer, inputs, mask)
        if getattr(layer, "center_weight", None) is not None:
            x = _center(layer, x, valid, inputs)
        self.channels.add(x, valid)
        if mixes_moments(layer):
            self.planes.append(plane_moments(x, valid))
        return bool(
            np.all(np.isfinite(self.channels.mean))
            and np.all(np.isfinite(self.channels.squares))
        )

    def merge(self, other):
        """Adds the values of another batch."""
        found = other.channels
        self.channels.merge(found.count, found.mean, found.squares)
        self.planes += other.planes

    def assign_for_batch(self):
        """Makes the layer normalize this batch at inference as in training."""
        assign_moments(self.layer, self.channels.mean, self.channels.variance)
        if mixes_moments(self.layer):
            for name in MIXING_WEIGHTS:
                getattr(self.layer, name).assign(0.0)

    def variance(self):
        """Returns the variance that the layer stores, `(C,)`."""
        variance = self.channels.variance
        if getattr(self.layer, "variance_correction", False):
            count = self.channels.count
            variance = variance * count / np.maximum(count - 1.0, 1.0)
        return variance


def read_moments(layer):
    """Returns `(moving_mean, moving_variance)` as float64 arrays."""
    return tuple(
        variables.read_copy(weight).astype(np.float64)
        for weight in (layer.moving_mean, layer.moving_variance)
    )


def check_moments(mean, variance, path):
    """Raises a `ConversionError` for statistics that are not valid."""
    valid = np.isfinite(mean) & np.isfinite(variance) & (variance >= 0)
    if not valid.all():
        index = int(np.argmin(valid))
        raise ConversionError(
            f"The moving statistics of {path!r} are not valid in "
            f"{np.sum(~valid)} of {valid.size} channels. Pass prior=0 to "
            f"replace them. Received: moving_mean[{index}]={mean[index]:g}, "
            f"moving_variance[{index}]={variance[index]:g}"
        )


def mix_in_prior(old, new, prior, num_examples):
    """Combines old and new moments, `(mean, variance)` each, by examples."""
    return combine(*zip(old, new, strict=True), (prior, num_examples))


def assign_moments(layer, mean, variance):
    """Assigns moments to a layer, and what Batch Renormalization derives."""
    values = {"moving_mean": mean, "moving_variance": variance}
    if getattr(layer, "renorm", False):
        stddev = np.sqrt(variance + layer.epsilon)
        values.update(
            moving_stddev=stddev, renorm_mean=mean, renorm_stddev=stddev
        )
    for name, value in values.items():
        variables.assign_copy(getattr(layer, name), value)


def check_stored(layer, path):
    """Raises a `ConversionError` if a statistic overflows its dtype."""
    weights = layer.moving_mean, layer.moving_variance
    for weight, stored in zip(weights, read_moments(layer), strict=True):
        dtype = keras.backend.standardize_dtype(weight.dtype)
        if not np.isfinite(stored).all():
            raise ConversionError(
                f"{weight.name} of {path!r} overflows its dtype: use a dtype "
                f"policy with float32 weights. Received: dtype={dtype}"
            )


def _channels_last(layer, inputs, mask):
    """Returns `(x, valid)` as arrays `(N, P, C)`; `valid` may be None."""
    axis = layer.axis
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    x = _array(inputs)
    valid = None
    if mask is not None and isinstance(layer, keras.layers.BatchNormalization):
        # Keras takes a mask to lack the last axis, whatever the channels are.
        valid = np.broadcast_to(_array(mask)[..., None], x.shape)
    elif mask is not None:
        valid = np.broadcast_to(_array(layer._valid(inputs, mask)), x.shape)

    def flatten(array):
        array = np.moveaxis(array, axis, -1)
        return array.reshape(len(array), -1, array.shape[-1])

    return flatten(x), None if valid is None else flatten(valid).astype(bool)


def _center(layer, x, valid, inputs):
    """Adds RBN's centering calibration to `x`, `(N, P, C)`, in float64."""
    statistic = layer.center_statistic
    if callable(statistic):
        wide = ops.cast(inputs, layer.moving_mean.dtype)
        planes = _array(
            statistic(wide, axis=layer._plane_axes, keepdims=True)
        ).reshape(len(x), -1)
    else:
        mean, variance, _ = plane_moments(x, valid)
        planes = mean if statistic == "mean" else np.sqrt(variance)
    weight = variables.read_copy(layer.center_weight).astype(np.float64)
    return x.astype(np.float64) + (planes * weight)[:, None]


def _array(tensor):
    return ops.convert_to_numpy(tensor)
