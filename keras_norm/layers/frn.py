"""Filter Response Normalization."""

import warnings

import keras
from keras import ops

from keras_norm import functional
from keras_norm.layers.channel_layer import PACKAGE
from keras_norm.layers.channel_layer import AffineChannelLayer

LEARNED_EPSILON_START = 1e-4


@keras.saving.register_keras_serializable(package=PACKAGE)
class FRN(AffineChannelLayer):
    """Filter Response Normalization: divides each plane by its own magnitude.

    Use it in place of batch normalization, followed by `TLU` in place of the
    ReLU. It keeps no running statistics: training and inference are the same
    function, a sample never sees another one, and neither the batch size nor
    the number of replicas changes the result.

    For a plane `x` of `N = H * W` values of one sample and one channel:

        nu2 = mean(x^2)
        y   = gamma * x / sqrt(nu2 + epsilon + |learned_epsilon|) + beta

    `x` and `y` are `(batch, H, W, C)`, `nu2` is `(batch, 1, 1, C)`, and there
    is one `gamma` and one `beta` a channel. No mean is subtracted, so that the
    activation that follows needs a learned threshold: see `TLU`.

    Args:
        axis: Integer, the channel axis. Every other axis but the batch is
            averaged over. Defaults to -1.
        epsilon: Float, at least 0, added to the mean square. Defaults to 1e-6.
        learned_epsilon: False for the fixed `epsilon` alone; True to learn one
            scalar on top of it; `"channel"` to learn one value a channel. Where
            a plane has one value only (dense layers, 1x1 maps) the fixed form
            is `sign(x)`, whose gradient vanishes: learn epsilon there.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        learned_epsilon_initializer: Defaults to the constant 1e-4.
        beta_regularizer: Optional regularizer of `beta`.
        gamma_regularizer: Optional regularizer of `gamma`.
        learned_epsilon_regularizer: Optional regularizer of `learned_epsilon`.
        beta_constraint: Optional constraint of `beta`.
        gamma_constraint: Optional constraint of `gamma`.
        learned_epsilon_constraint: Optional constraint of `learned_epsilon`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored; taken so that the layer replaces batch normalization.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in `nu2`.

    Input shape:
        `(batch, positions..., channels)` of rank 3, 4 or 5, or the same with
        `channels` at `axis`; sizes of positions may be unknown. Rank 2 with a
        learned epsilon.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis`, `epsilon` or
            `learned_epsilon`, a rank outside 2 to 5, channels of unknown size,
            or rank 2 without a learned epsilon.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[[3.0], [4.0]]])  # one sample, two positions
    >>> y = keras_norm.FRN(epsilon=0.0)(x)  # divided by sqrt((9 + 16) / 2)
    >>> [f"{v:.4f}" for v in keras.ops.convert_to_numpy(y).ravel()]
    ['0.8485', '1.1314']

    Relations:
        The output of a sample is the same in any batch. `FRN(s * x) = FRN(x)`
        for `s > 0` and `epsilon=0`. A plane of zeros gives `beta`.

    Departures from the paper:
        The form `epsilon + |learned_epsilon|` with `epsilon` 1e-6 is the
        paper's; whether its learned part is a scalar or a vector is not said
        there, so both are offered. Moments are float32 under every policy.

    Reference:
        Singh and Krishnan, "Filter Response Normalization Layer: Eliminating
        Batch Dependence in the Training of Deep Neural Networks", CVPR 2020,
        https://arxiv.org/abs/1911.09737, equations 1 and 2.
    """

    def __init__(
        self,
        axis=-1,
        epsilon=1e-6,
        learned_epsilon=False,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        learned_epsilon_initializer=None,
        beta_regularizer=None,
        gamma_regularizer=None,
        learned_epsilon_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        learned_epsilon_constraint=None,
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
        if learned_epsilon not in (False, True, "channel"):
            raise ValueError(
                "`learned_epsilon` must be False, True (one scalar) or "
                f'"channel". Received: learned_epsilon={learned_epsilon!r}'
            )
        if learned_epsilon_initializer is None:
            learned_epsilon_initializer = keras.initializers.Constant(
                LEARNED_EPSILON_START
            )
        self._learns_epsilon = learned_epsilon
        self._declare_weight(
            "learned_epsilon",
            learned_epsilon_initializer,
            learned_epsilon_regularizer,
            learned_epsilon_constraint,
        )
        self.learned_epsilon = None

    def build(self, input_shape):
        self._build_axes(input_shape, max_rank=5)
        self._check_planes(input_shape)
        self._build_affine()
        if self._learns_epsilon:
            shape = None if self._learns_epsilon == "channel" else ()
            self.learned_epsilon = self._create_weight("learned_epsilon", shape)
        self.built = True

    def _check_planes(self, input_shape):
        sizes = {input_shape[axis] for axis in self._plane_axes}
        if self._learns_epsilon or sizes - {1}:
            return
        if len(input_shape) == 2:
            raise ValueError(
                "FRN of rank-2 inputs has one value a plane: with a fixed "
                "epsilon that is sign(x), whose gradient vanishes. Pass "
                "learned_epsilon=True. Received: "
                f"input_shape={tuple(input_shape)}, learned_epsilon=False"
            )
        warnings.warn(
            f"FRN {self.name!r} sees 1x1 maps, input_shape="
            f"{tuple(input_shape)}: with a fixed epsilon that is sign(x), "
            "whose gradient vanishes. Pass learned_epsilon=True.",
            stacklevel=2,
        )

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        epsilon = self.epsilon
        if self.learned_epsilon is not None:
            learned = self._per_channel(self.learned_epsilon, x.dtype)
            epsilon = epsilon + ops.abs(learned)
        factor = functional.filter_response(
            x, self._plane_axes, epsilon, self._valid(x, mask)
        )
        if self.gamma is not None:
            factor = factor * self._per_channel(self.gamma, x.dtype)
        beta = self._per_channel(self.beta, x.dtype)
        y = functional.scale_and_shift(x, None, factor, beta)
        return functional.cast_finite(y, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config["learned_epsilon"] = self._learns_epsilon
        return config
