"""Representative Batch Normalization."""

import keras
from keras import ops

from keras_norm import functional
from keras_norm import moments
from keras_norm.layers._batch_statistics import BatchStatisticsLayer
from keras_norm.layers._calibration import CalibrationMixin
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._checks import check_choice
from keras_norm.layers._groups import check_divides
from keras_norm.layers._groups import check_groups
from keras_norm.layers._groups import default_groups

STATISTICS = ("batch", "instance", "group")


@keras.saving.register_keras_serializable(package=PACKAGE)
class RBN(CalibrationMixin, BatchStatisticsLayer):
    """Batch normalization calibrated by each sample's own statistics.

    Use it in place of batch normalization, with the same activation. Centering
    calibration shifts the features of each example before the batch moments are
    applied, and scaling calibration scales them afterwards. Both depend on the
    statistics of the example itself and on three learned values per channel.
    Calibration is the same in training and inference; batch moments work as in
    `BatchNormalization`. Import `keras_norm` before loading a saved model that
    contains this layer.

    Calibration can be combined with other moments: Batch Renormalization
    (`renorm=True`), each plane (`statistics="instance"`) or groups of channels
    (`statistics="group"`). The last two do not depend on the batch. If each
    plane is centered by its own mean, centering calibration has no effect.

    With `m(.)` the mean of a plane, `(batch, 1, 1, C)`, and the moments of
    `x_c` over the batch, `(1, 1, 1, C)`:

        x_c = x + center_weight * m(x)
        x_s = (x_c - mean) / sqrt(variance + epsilon)
        y   = gamma * x_s * R(scale_weight * m(x_s) + scale_bias) + beta

    The layer needs the mean and the variance of each plane and one affine pass
    over `x`; `x_c` and `x_s` are never stored.

    Args:
        axis: Integer, the channel axis. Defaults to -1.
        statistics: Source of the moments: `"batch"`, `"instance"` or
            `"group"`. Defaults to `"batch"`.
        groups: Integer that divides the channels, only for `"group"`. None for
            the default of `GroupNormalization`. Defaults to None.
        momentum: Float in [0, 1], of the moving moments. Defaults to 0.99.
        epsilon: Float, at least 0. Defaults to 1e-3.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        *_initializer: `"zeros"` for `beta`, `center_weight`, `scale_weight` and
            `moving_mean`; `"ones"` for `gamma`, `scale_bias` and
            `moving_variance`.
        *_regularizer, *_constraint: Optional, for `beta`, `gamma`,
            `center_weight`, `scale_weight` and `scale_bias`.
        center_statistic: Statistic for centering: `"mean"` or `"std"` of the
            plane, a function called as `f(x, axis=..., keepdims=True)`, such as
            `keras.ops.max`, or None for no centering calibration. Defaults to
            `"mean"`.
        scale_statistic: Statistic of the normalized features for scaling; same
            values.
        restriction: `R`, a Keras activation by name or a function, into (0, 1).
            Defaults to `"sigmoid"`.
        renorm, renorm_clipping, renorm_momentum: As in `BatchNormalization`.
        synchronized: Whether to compute moments over the global batch.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Whether to normalize with batch moments and update the moving
            moments.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in any statistic.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, statistic or restriction, a bad
            `axis`, `epsilon`, `momentum`, `renorm_clipping` or `groups`, a rank
            below 2, channels of unknown size, or a mask with a statistic that
            is a function.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[[0.0], [2.0]]])
    >>> y = keras_norm.RBN(epsilon=0.0)(x, training=True)
    >>> [f"{v:.4f}" for v in keras.ops.convert_to_numpy(y).ravel()]
    ['-0.7311', '0.7311']

    Derivatives:
        Custom gradients, which are themselves differentiable. JAX's forward
        mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError.

    Relations:
        With both statistics None it equals `BatchNormalization`, or Keras'
        `GroupNormalization` for `"instance"` and `"group"`. A new RBN is a
        new `BatchNormalization` times `sigmoid(1) = 0.7311`.
        `center_weight = -1` centers every plane by its own mean.

    Departures from the paper:
        None in the formulas. The initial values are arguments. The paper names
        the other moments without results for them.

    Reference:
        Gao, Han, Li, Cheng and Peng, "Representative Batch Normalization with
        Feature Calibration", CVPR 2021.
    """

    neutral_at_zero = ("center_weight", "scale_weight")

    def __init__(
        self,
        axis=-1,
        statistics="batch",
        groups=None,
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
        renorm=False,
        renorm_clipping=None,
        renorm_momentum=0.99,
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
            renorm=renorm,
            renorm_clipping=renorm_clipping,
            renorm_momentum=renorm_momentum,
            synchronized=synchronized,
            **kwargs,
        )
        self.statistics = check_choice("statistics", statistics, STATISTICS)
        self.groups = check_groups(groups)
        if groups is not None and statistics != "group":
            raise ValueError(
                '`groups` goes with statistics="group", whose moments are of '
                f"groups of channels. Received: groups={groups}, "
                f"statistics={statistics!r}"
            )
        self._declare_calibration(
            center_statistic=center_statistic,
            scale_statistic=scale_statistic,
            restriction=restriction,
            center_weight=(
                center_weight_initializer,
                center_weight_regularizer,
                center_weight_constraint,
            ),
            scale_weight=(
                scale_weight_initializer,
                scale_weight_regularizer,
                scale_weight_constraint,
            ),
            scale_bias=(
                scale_bias_initializer,
                scale_bias_regularizer,
                scale_bias_constraint,
            ),
        )

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._build_affine()
        if self.statistics == "batch":
            self._build_moving()
        elif self.statistics == "group":
            self._num_groups = self._count_groups(input_shape)
            check_divides(self._num_groups, self._num_channels)
            self._joins_channels = True
        self._build_calibration()
        self.built = True

    def _count_groups(self, input_shape):
        if self.groups is not None:
            return self.groups
        has_single_values = self._has_single_values(input_shape)
        return 1 if has_single_values else default_groups(self._num_channels)

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        _, normalization, level = self._calibrate(x, training, mask)
        center, factor, offset = normalization
        if level is not None:
            factor, offset = functional.fold_affine(factor, offset, level, None)
        return self._transform(x, center, factor, offset)

    def _normalization(self, mean, variance, count, training):
        """`(center, factor, offset)` from the moments of centered planes."""
        if self.statistics == "batch":
            planes = None
            if self._learns_statistics(training):
                planes = mean, variance, count
            return self._standardization(planes, mean.dtype)
        if self.statistics == "group":
            mean, variance = moments.group_moments(
                mean, variance, self._num_groups
            )
        return mean, ops.rsqrt(variance + self.epsilon), None

    def get_config(self):
        config = {**super().get_config(), **self._renorm_config()}
        is_built_group = self.built and self.statistics == "group"
        groups = self._num_groups if is_built_group else self.groups
        config.update(statistics=self.statistics, groups=groups)
        return config

    @classmethod
    def from_config(cls, config):
        # Files of earlier versions may hold groups without effect.
        groups = config.get("groups")
        if config.get("statistics", "batch") == "group":
            return super().from_config(config)
        layer = super().from_config({**config, "groups": None})
        layer.groups = groups
        return layer
