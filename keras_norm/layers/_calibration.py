"""Calibration of a normalization by statistics of each example (RBN).

A normalization is `(x - center) * factor + offset`, with one value per plane or
channel. Centering calibration shifts the planes before their moments are used;
scaling calibration multiplies the normalized features. Both need only the
moments of the planes, unless their statistic is a function.
"""

import keras
from keras import ops

from keras_norm import functional
from keras_norm import fused_ops
from keras_norm import moments

STATISTICS = ("mean", "std")


class CalibrationMixin:
    """Calibrates an `AffineChannelLayer` that normalizes by moments of planes.

    The layer defines `_normalization(mean, variance, count, training)`, which
    returns `(center, factor, offset)` for the moments of centered planes. `RBN`
    documents the arguments.
    """

    def _declare_calibration(
        self,
        center_statistic,
        scale_statistic,
        restriction,
        center_weight,
        scale_weight,
        scale_bias,
    ):
        self.center_statistic = _check("center_statistic", center_statistic)
        self.scale_statistic = _check("scale_statistic", scale_statistic)
        self.restriction = keras.activations.get(restriction)
        self._declare_weight("center_weight", *center_weight)
        self._declare_weight("scale_weight", *scale_weight)
        self._declare_weight("scale_bias", *scale_bias)
        self.center_weight = None
        self.scale_weight = None
        self.scale_bias = None

    def _build_calibration(self):
        if self.center_statistic is not None:
            self.center_weight = self._create_weight("center_weight")
        if self.scale_statistic is not None:
            self.scale_weight = self._create_weight("scale_weight")
            self.scale_bias = self._create_weight("scale_bias")

    def _calibrate(self, x, training, mask):
        """Computes the shift, the normalization and the level of each plane.

        Returns:
            `(shift, (center, factor, offset), level)`, each `(N, 1, 1, C)` or
            `(1, 1, 1, C)`; `shift`, `offset` and `level` may be None.
        """
        axes, shift, level = self._plane_axes, None, None
        valid = self._valid(x, mask)
        self._check_mask(mask)
        mean, variance, count = moments.plane_moments(x, axes, valid)
        centered = mean
        if self.center_weight is not None:
            shift = _input_statistic(
                self.center_statistic, x, axes, mean, variance
            ) * self._per_channel(self.center_weight, x.dtype)
            centered = mean + shift
        center, factor, offset = self._normalization(
            centered, variance, count, training
        )
        if shift is not None:
            center = center - shift
        normalization = center, factor, offset
        if self.scale_weight is not None:
            statistic = _normalized_statistic(
                self.scale_statistic, x, axes, mean, variance, *normalization
            )
            if valid is not None:
                # A plane without valid values has the statistic 0.
                statistic = ops.where(count > 0, statistic, 0.0)
            weight = self._per_channel(self.scale_weight, x.dtype)
            bias = self._per_channel(self.scale_bias, x.dtype)
            level = self.restriction(weight * statistic + bias)
        return shift, normalization, level

    def features(self, inputs):
        """Returns the features before and after each calibration at inference.

        Args:
            inputs: Tensor, array or list, as for a call.

        Returns:
            Dict of tensors of the input's shape: `"input"`, `"centered"`,
            `"normalized"` and `"scaled"`.
        """
        if not self.built:
            raise ValueError(
                "`features` needs the weights of the layer: build it or call "
                f"it first. Received: layer={self.name!r}, built=False"
            )
        x = self._widen(inputs)
        shift, normalization, level = self._calibrate(x, False, None)
        normalized = functional.scale_and_shift(x, *normalization)
        return {
            "input": x,
            "centered": x if shift is None else x + shift,
            "normalized": normalized,
            "scaled": normalized if level is None else normalized * level,
        }

    def _check_mask(self, mask):
        if mask is not None and (
            callable(self.center_statistic) or callable(self.scale_statistic)
        ):
            raise ValueError(
                "A statistic that is a function takes no mask. Received: "
                f"center_statistic={self.center_statistic}, "
                f"scale_statistic={self.scale_statistic}"
            )

    def get_config(self):
        config = super().get_config()
        config.update(
            center_statistic=_serialize(self.center_statistic),
            scale_statistic=_serialize(self.scale_statistic),
            restriction=keras.activations.serialize(self.restriction),
        )
        return config


def _check(argument, statistic):
    """Returns the statistic, read back first if it comes from a config.

    Args:
        argument: The name of the argument, for the message.
        statistic: `"mean"`, `"std"`, a function called as
            `f(x, axis=..., keepdims=True)`, its serialized form, or None.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(statistic, dict):
        statistic = keras.saving.deserialize_keras_object(statistic)
    if statistic is None or statistic in STATISTICS or callable(statistic):
        return statistic
    raise ValueError(
        f'`{argument}` must be "mean", "std", a function or None. '
        f"Received: {argument}={statistic!r}"
    )


def _serialize(statistic):
    """Returns the statistic in the form that a config holds."""
    if callable(statistic):
        return keras.saving.serialize_keras_object(statistic)
    return statistic


def _input_statistic(statistic, x, axes, mean, variance):
    """Computes the statistic of every plane of `x`, `(N, 1, 1, C)`.

    Args:
        statistic: As in `_check`, not None.
        x: Tensor `(N, H, W, C)`.
        axes: Tuple of the axes of a plane.
        mean: The mean of every plane, `(N, 1, 1, C)`.
        variance: The variance of every plane, `(N, 1, 1, C)`.
    """
    if statistic == "mean":
        return mean
    if statistic == "std":
        return moments.plane_std(variance)
    return statistic(x, axis=axes, keepdims=True)


def _normalized_statistic(
    statistic, x, axes, mean, variance, center, factor, offset
):
    """Computes the statistic of each plane of `(x - center) * factor + offset`.

    Computes the features only if the statistic is a function. The arguments
    are those of `_input_statistic` and the terms of the normalization,
    `(N, 1, 1, C)` or `(1, 1, 1, C)`.
    """
    if statistic == "mean":
        return functional.scale_and_shift(mean, center, factor, offset)
    if statistic == "std":
        return moments.plane_std(variance) * factor
    # XLA must repeat exactly these operations: the gradient of a maximum
    # searches for the value that is equal to it.
    features = fused_ops.affine(x, axes, center, factor, offset)
    return statistic(features, axis=axes, keepdims=True)
