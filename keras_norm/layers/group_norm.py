"""Group normalization, including instance and layer normalization."""

import keras
from keras import ops

from keras_norm import moments
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.layers._groups import check_divides
from keras_norm.layers._groups import check_groups
from keras_norm.layers._groups import default_groups
from keras_norm.layers._groups import legacy_default_groups

INSTANCE = -1
AUTO = "auto"


@keras.saving.register_keras_serializable(package=PACKAGE)
class GroupNormalization(AffineChannelLayer):
    """Group normalization: standardizes groups of channels of each example.

    Use it in place of batch normalization, with the same activation. It has no
    moving statistics: training and inference compute the same function,
    examples do not affect each other, and the result does not depend on the
    batch size or the number of replicas. It computes the same as
    `keras.layers.GroupNormalization`, also accepts masks and `training`,
    chooses the number of groups itself, and reads its input once for the
    moments. Import `keras_norm` before loading a saved model that contains this
    layer.

    With the moments over the positions and channels of an example's group:

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    `x` and `y` are `(batch, H, W, C)`, the moments `(batch, 1, 1, C)`, equal
    within a group; there is one `gamma` and one `beta` per channel.

    Args:
        groups: A positive integer that divides the channels; 1 is layer
            normalization over the whole example. -1 for one group per channel,
            which is instance normalization. None, or `"auto"`, for the largest
            divisor of the channels that is at most 32 and leaves at least 4
            channels per group, such as 4 groups for 16 channels and 32 for 256;
            one group if there is no such divisor, or if a plane has one value
            (vectors, 1x1 maps). Defaults to None.
        axis: Integer, the channel axis. Defaults to -1.
        epsilon: Float, at least 0. Defaults to 1e-3.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        beta_regularizer: Optional regularizer of `beta`.
        gamma_regularizer: Optional regularizer of `gamma`.
        beta_constraint: Optional constraint of `beta`.
        gamma_constraint: Optional constraint of `gamma`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored; accepted for compatibility with batch normalization.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in the moments.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`;
        sizes of positions may be unknown. Each group has more than one value.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis`, `epsilon` or `groups`,
            a rank below 2, channels of unknown size, or groups of one value.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[1.0, 3.0, 10.0, 30.0]])  # one example
    >>> y = keras_norm.GroupNormalization(groups=2, epsilon=0.0)(x)
    >>> keras.ops.convert_to_numpy(y)[0].tolist()
    [-1.0, 1.0, -1.0, 1.0]

    Derivatives:
        Custom gradients, which are themselves differentiable. JAX's forward
        mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError.

    Relations:
        It equals `keras.layers.GroupNormalization` with the same groups, and
        `FRN(subtract_mean=True)` with the same groups and epsilon. The output
        of an example is the same in any batch.

    Departures from the paper:
        None in the formula. The paper always uses 32 groups, which for 32
        channels is one channel per group: instance normalization.

    Saved models:
        The config of a built layer holds the number of groups, even if the
        layer chose it. A config with `groups: None` is from a version whose
        default was the greatest common divisor of 32 and the channels, and
        creates a layer with that many groups.

    Reference:
        Wu and He, "Group Normalization", ECCV 2018,
        https://arxiv.org/abs/1803.08494, equations 1, 2 and 7; Ulyanov, Vedaldi
        and Lempitsky, "Instance Normalization: The Missing Ingredient for Fast
        Stylization", 2016, https://arxiv.org/abs/1607.08022.
    """

    def __init__(
        self,
        groups=None,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        **kwargs,
    ):
        super().__init__(
            axis=axis,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta=(beta_initializer, beta_regularizer, beta_constraint),
            gamma=(gamma_initializer, gamma_regularizer, gamma_constraint),
            **kwargs,
        )
        self.groups = check_groups(
            None if groups == AUTO else groups, others=(INSTANCE, None)
        )
        self._default_groups = default_groups

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._input_shape = tuple(input_shape)
        self._num_groups = self._count_groups(input_shape)
        self._joins_channels = self._num_groups < self._num_channels
        self._build_affine()
        self.built = True

    def _count_groups(self, input_shape):
        num_channels = self._num_channels
        has_single_values = self._has_single_values(input_shape)
        if self.groups is None:
            chosen = self._default_groups(num_channels)
            num_groups = 1 if has_single_values else chosen
        elif self.groups == INSTANCE:
            num_groups = num_channels
        else:
            num_groups = self.groups
            check_divides(num_groups, num_channels)
        if num_groups == num_channels and has_single_values:
            raise ValueError(
                "Normalization of one value a plane, each channel by itself, "
                "is 0 whatever the input: it needs positions, as in a feature "
                "map, or fewer groups than channels. Received: "
                f"groups={self.groups}, input_shape={tuple(input_shape)}"
            )
        return num_groups

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        mean, variance, _ = moments.plane_moments(
            x, self._plane_axes, self._valid(x, mask)
        )
        if self._num_groups != self._num_channels:
            mean, variance = moments.group_moments(
                mean, variance, self._num_groups
            )
        factor = ops.rsqrt(variance + self.epsilon)
        return self._transform(x, mean, factor)

    def take_former_default(self):
        """Chooses the groups as layers did whose config says `groups: None`.

        To be called before the layer is. A number that was passed as `groups`
        stays.
        """
        self._default_groups = legacy_default_groups
        if self.built:
            self._num_groups = self._count_groups(self._input_shape)

    def get_config(self):
        groups = self.groups
        if groups is None and self.built:
            groups = self._num_groups
        elif groups is None and self._default_groups is default_groups:
            groups = AUTO
        return {**super().get_config(), "groups": groups}

    @classmethod
    def from_config(cls, config):
        layer = super().from_config(config)
        if config.get("groups", AUTO) is None:
            layer.take_former_default()
        return layer
