"""Filter Response Normalization."""

import warnings

import keras
from keras import ops

from keras_norm import moments
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.layers._checks import check_choice
from keras_norm.layers._groups import check_divides
from keras_norm.layers._groups import check_groups

LEARNED_EPSILON_START = 1e-4
LEARNED_EPSILONS = (False, True, "channel", "auto")


@keras.saving.register_keras_serializable(package=PACKAGE)
class FRN(AffineChannelLayer):
    """Filter Response Normalization: divides each plane by its own magnitude.

    Use it in place of batch normalization, followed by `TLU` in place of ReLU.
    It has no moving statistics: training and inference compute the same
    function, examples do not affect each other, and the result does not depend
    on the batch size or the number of replicas. Import `keras_norm` before
    loading a saved model that contains this layer.

    For a plane `x` of `N = H * W` values of one example and one channel:

        nu2 = mean(x^2)
        y   = gamma * x / sqrt(nu2 + epsilon + |learned_epsilon|) + beta

    `x` and `y` are `(batch, H, W, C)`, `nu2` is `(batch, 1, 1, C)`, and there
    is one `gamma` and one `beta` per channel. No mean is subtracted, so the
    activation that follows needs a learned threshold: see `TLU`.

    The paper compares with three siblings, which are options: GFRN
    (`groups=32`), LFRN (`groups=1`) and FRN with the mean subtracted
    (`subtract_mean=True`).

    Args:
        axis: Integer, the channel axis. Every other axis but the batch is
            averaged over. Defaults to -1.
        epsilon: Float, at least 0, added to the mean square. Defaults to 1e-6.
        learned_epsilon: False to use only the fixed `epsilon`; True to add a
            learned scalar; `"channel"` to add one learned value per channel. If
            a plane has only one value (dense layers, 1x1 maps), the fixed form
            is `sign(x)`, whose gradient vanishes: learn epsilon in that case.
            `"auto"` is True in that case and False otherwise; an unknown size
            counts as more than 1. Defaults to False.
        activation: None, or `"tlu"` for `max(y, tau)` in the same pass over
            memory, which is faster than `FRN` followed by `TLU`.
        groups: None to average over planes; an integer that divides the
            channels to average over that many groups of channels as well.
        subtract_mean: Whether to subtract the mean first, which makes `nu2` the
            variance. Defaults to False.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        learned_epsilon_initializer: Defaults to the constant 1e-4.
        tau_initializer: Defaults to `"zeros"`.
        *_regularizer, *_constraint: Optional, for `beta`, `gamma`,
            `learned_epsilon` and `tau`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored; accepted for compatibility with batch normalization.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in `nu2`.

    Input shape:
        `(batch, positions..., channels)` of rank 3, 4 or 5, or the same with
        `channels` at `axis`; sizes of positions may be unknown. Rank 2 with a
        learned epsilon.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis`, `epsilon`,
            `learned_epsilon`, `activation` or `groups`, a rank outside 2 to 5,
            channels of unknown size, or rank 2 without a learned epsilon.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[[3.0], [4.0]]])  # one example, two positions
    >>> y = keras_norm.FRN(epsilon=0.0)(x)  # divided by sqrt((9 + 16) / 2)
    >>> [f"{v:.4f}" for v in keras.ops.convert_to_numpy(y).ravel()]
    ['0.8485', '1.1314']

    Derivatives:
        Custom gradients, which are themselves differentiable. JAX's forward
        mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError.

    Relations:
        The output of an example is the same in any batch. `FRN(s * x) = FRN(x)`
        for `s > 0` and `epsilon=0`. A plane of zeros gives `beta`. With
        `subtract_mean` it is instance normalization, and with `groups` as well
        group normalization, with a learned epsilon and threshold to add.

    Departures from the paper:
        The form `epsilon + |learned_epsilon|` with `epsilon` 1e-6 is from the
        paper, which does not say if the learned part is a scalar or a vector:
        both are available. Moments are float32 or wider under every policy.

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
        activation=None,
        groups=None,
        subtract_mean=False,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        learned_epsilon_initializer=None,
        tau_initializer="zeros",
        beta_regularizer=None,
        gamma_regularizer=None,
        learned_epsilon_regularizer=None,
        tau_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        learned_epsilon_constraint=None,
        tau_constraint=None,
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
        self._learns_epsilon = check_choice(
            "learned_epsilon", learned_epsilon, LEARNED_EPSILONS
        )
        self.activation = check_choice("activation", activation, (None, "tlu"))
        self.groups = check_groups(groups)
        self.subtract_mean = subtract_mean
        if learned_epsilon_initializer is None:
            learned_epsilon_initializer = keras.initializers.Constant(
                LEARNED_EPSILON_START
            )
        self._declare_weight(
            "learned_epsilon",
            learned_epsilon_initializer,
            learned_epsilon_regularizer,
            learned_epsilon_constraint,
        )
        self._declare_weight(
            "tau", tau_initializer, tau_regularizer, tau_constraint
        )
        self.learned_epsilon = None
        self.tau = None
        self.sees_single_values = None

    def build(self, input_shape):
        self._build_axes(input_shape, max_rank=5)
        check_divides(self.groups, self._num_channels)
        self._joins_channels = self.groups is not None
        self.sees_single_values = self._has_single_values(input_shape)
        learns_epsilon = self._learns_epsilon
        if learns_epsilon == "auto":
            learns_epsilon = self.sees_single_values
        elif not learns_epsilon:
            self._check_planes(input_shape)
        self._build_affine()
        if learns_epsilon:
            shape = None if learns_epsilon == "channel" else ()
            self.learned_epsilon = self._create_weight("learned_epsilon", shape)
        if self.activation == "tlu":
            self.tau = self._create_weight("tau")
        self.built = True

    def _check_planes(self, input_shape):
        num_together = self._num_channels // (self.groups or self._num_channels)
        if num_together > 1 or not self._has_single_values(input_shape):
            return
        if len(input_shape) == 2:
            raise ValueError(
                "FRN of rank-2 inputs has one value a plane: with a fixed "
                "epsilon that is sign(x), whose gradient vanishes. Pass "
                "learned_epsilon=True or 'auto'. Received: "
                f"input_shape={tuple(input_shape)}, learned_epsilon=False"
            )
        warnings.warn(
            f"FRN {self.name!r} sees 1x1 maps, input_shape="
            f"{tuple(input_shape)}: with a fixed epsilon that is sign(x), "
            "whose gradient vanishes. Pass learned_epsilon=True or 'auto'.",
            stacklevel=2,
        )

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        center, square = self._moments(x, self._valid(x, mask))
        epsilon = self.epsilon
        if self.learned_epsilon is not None:
            learned = self._per_channel(self.learned_epsilon, x.dtype)
            epsilon = epsilon + ops.abs(learned)
        factor = ops.rsqrt(square + epsilon)
        return self._transform(x, center, factor, tau=self.tau)

    def _moments(self, x, valid):
        """Returns the mean to subtract or None, and `nu2`, `(N, 1, 1, C)`."""
        if self.subtract_mean:
            mean, variance, _ = moments.plane_moments(
                x, self._plane_axes, valid
            )
            if self.groups is None:
                return mean, variance
            return moments.group_moments(mean, variance, self.groups)
        square = moments.plane_mean_square(x, self._plane_axes, valid)
        if self.groups is not None:
            square = moments.group_mean(square, self.groups)
        return None, square

    def mean_square(self, inputs, mask=None):
        """Returns `nu2` of each example and channel, a float64 array `(N, C)`.

        Args:
            inputs: Tensor, as in a call.
            mask: As in a call.
        """
        x = self._widen(inputs)
        _, square = self._moments(x, self._valid(x, mask))
        square = ops.convert_to_numpy(ops.stop_gradient(square))
        return square.reshape(len(square), -1).astype("float64")

    def get_config(self):
        config = super().get_config()
        config.update(
            learned_epsilon=self._learns_epsilon,
            activation=self.activation,
            groups=self.groups,
            subtract_mean=self.subtract_mean,
        )
        return config
