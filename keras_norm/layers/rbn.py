"""Representative Batch Normalization."""

import keras
from keras import ops

from keras_norm import functional
from keras_norm import kernels
from keras_norm.layers import plane_statistic
from keras_norm.layers.batch_statistics import BatchStatisticsLayer
from keras_norm.layers.channel_layer import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class RBN(BatchStatisticsLayer):
    """Batch normalization calibrated by each sample's own statistics.

    Use it in place of batch normalization, activation unchanged: before the
    batch moments a sample's features are centered a little more or less, after
    them they are scaled, both by what the sample itself looks like and by three
    learned values a channel. The calibration is the same in training and at
    inference; the batch moments behave as in `BatchNormalization`.

    With `m(.)` the mean of a plane, `(batch, 1, 1, C)`, and the moments of
    `x_c` over the batch, `(1, 1, 1, C)`:

        x_c = x + center_weight * m(x)
        x_s = (x_c - mean) / sqrt(variance + epsilon)
        y   = gamma * x_s * R(scale_weight * m(x_s) + scale_bias) + beta

    It is computed from the mean and the variance of each plane and one affine
    pass over `x`; `x_c` and `x_s` are never stored.

    Args:
        axis: Integer, the channel axis. Defaults to -1.
        momentum: Float in [0, 1], of the moving moments. Defaults to 0.99.
        epsilon: Float, at least 0. Defaults to 1e-3.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        moving_mean_initializer: Defaults to `"zeros"`.
        moving_variance_initializer: Defaults to `"ones"`.
        center_weight_initializer: Defaults to `"zeros"`.
        scale_weight_initializer: Defaults to `"zeros"`.
        scale_bias_initializer: Defaults to `"ones"`.
        *_regularizer, *_constraint: Optional, for `beta`, `gamma`,
            `center_weight`, `scale_weight` and `scale_bias`.
        center_statistic: What centers: `"mean"` or `"std"` of the plane, a
            function called as `f(x, axis=..., keepdims=True)`, such as
            `keras.ops.max`, or None for no centering calibration. Defaults to
            `"mean"`.
        scale_statistic: What scales, of the normalized features; as above.
        restriction: `R`, a Keras activation by name or a function, into (0, 1).
            Defaults to `"sigmoid"`.
        synchronized: Whether the moments are those of the global batch.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Whether to use and to update with the moments of the batch.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in any statistic.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, statistic or restriction, a bad
            `axis`, `epsilon` or `momentum`, a rank below 2, channels of unknown
            size, or a mask with a statistic that is a function.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[[0.0], [2.0]]])
    >>> y = keras_norm.RBN(epsilon=0.0)(x, training=True)
    >>> [f"{v:.4f}" for v in keras.ops.convert_to_numpy(y).ravel()]
    ['-0.7311', '0.7311']

    Relations:
        With both statistics None it equals `BatchNormalization`. A new RBN is a
        new `BatchNormalization` times `sigmoid(1) = 0.7311`.
        `center_weight = -1` centers every plane on its own.

    Departures from the paper:
        None in the formulas. The start values are arguments.

    Reference:
        Gao, Han, Li, Cheng and Peng, "Representative Batch Normalization with
        Feature Calibration", CVPR 2021.
    """

    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        center_weight_initializer="zeros",
        scale_weight_initializer="zeros",
        scale_bias_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        center_weight_regularizer=None,
        scale_weight_regularizer=None,
        scale_bias_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        center_weight_constraint=None,
        scale_weight_constraint=None,
        scale_bias_constraint=None,
        center_statistic="mean",
        scale_statistic="mean",
        restriction="sigmoid",
        synchronized=False,
        **kwargs,
    ):
        super().__init__(
            axis=axis,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta=(beta_initializer, beta_regularizer, beta_constraint),
            gamma=(gamma_initializer, gamma_regularizer, gamma_constraint),
            momentum=momentum,
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            synchronized=synchronized,
            **kwargs,
        )
        self._declare_weight(
            "center_weight",
            center_weight_initializer,
            center_weight_regularizer,
            center_weight_constraint,
        )
        self._declare_weight(
            "scale_weight",
            scale_weight_initializer,
            scale_weight_regularizer,
            scale_weight_constraint,
        )
        self._declare_weight(
            "scale_bias",
            scale_bias_initializer,
            scale_bias_regularizer,
            scale_bias_constraint,
        )
        self.center_statistic = plane_statistic.check(
            "center_statistic", center_statistic
        )
        self.scale_statistic = plane_statistic.check(
            "scale_statistic", scale_statistic
        )
        self.restriction = keras.activations.get(restriction)
        self.center_weight = None
        self.scale_weight = None
        self.scale_bias = None

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._build_affine()
        self._build_moving()
        if self.center_statistic is not None:
            self.center_weight = self._create_weight("center_weight")
        if self.scale_statistic is not None:
            self.scale_weight = self._create_weight("scale_weight")
            self.scale_bias = self._create_weight("scale_bias")
        self.built = True

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        valid = self._valid(x, mask)
        self._check_mask(mask)
        mean, variance, count = functional.plane_moments(
            x, self._plane_axes, valid
        )
        shift = self._centering(x, mean, variance)
        planes = None
        if self._learns_statistics(training):
            planes = mean + shift, variance, count
        center, factor, offset = self._standardization(planes, x.dtype)
        center = center - shift
        if self.scale_weight is not None:
            level = self._level(x, mean, variance, center, factor, offset)
            factor, offset = functional.compose(factor, offset, level, None)
        gamma = self._per_channel(self.gamma, x.dtype)
        beta = self._per_channel(self.beta, x.dtype)
        factor, offset = functional.compose(factor, offset, gamma, beta)
        y = kernels.affine(x, self._plane_axes, center, factor, offset)
        return functional.cast_finite(y, self.compute_dtype)

    def _centering(self, x, mean, variance):
        """What centering calibration adds to every plane, `(N, 1, 1, C)`."""
        if self.center_weight is None:
            return ops.zeros_like(mean)
        weight = self._per_channel(self.center_weight, x.dtype)
        if self.center_statistic == "mean":
            return weight * mean
        if self.center_statistic == "std":
            return weight * functional.plane_std(variance)
        return weight * self.center_statistic(
            x, axis=self._plane_axes, keepdims=True
        )

    def _level(self, x, mean, variance, center, factor, offset):
        """What scaling calibration multiplies planes by, `(N, 1, 1, C)`."""
        if self.scale_statistic == "mean":
            statistic = functional.scale_and_shift(mean, center, factor, offset)
        elif self.scale_statistic == "std":
            statistic = functional.plane_std(variance) * factor
        else:
            statistic = self.scale_statistic(
                functional.scale_and_shift(x, center, factor, offset),
                axis=self._plane_axes,
                keepdims=True,
            )
        weight = self._per_channel(self.scale_weight, x.dtype)
        bias = self._per_channel(self.scale_bias, x.dtype)
        return self.restriction(weight * statistic + bias)

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
            center_statistic=plane_statistic.serialize(self.center_statistic),
            scale_statistic=plane_statistic.serialize(self.scale_statistic),
            restriction=keras.activations.serialize(self.restriction),
        )
        return config
