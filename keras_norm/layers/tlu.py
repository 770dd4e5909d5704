"""Thresholded Linear Unit."""

import keras

from keras_norm import functional
from keras_norm import fused_ops
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._channel_layer import ChannelLayer
from keras_norm.layers._checks import check_number


@keras.saving.register_keras_serializable(package=PACKAGE)
class TLU(ChannelLayer):
    """Thresholded Linear Unit: a ReLU whose threshold is learned.

    Use it in place of ReLU after `FRN`. FRN does not subtract a mean, so its
    output may be biased away from zero; the learned threshold compensates for
    this. A newly initialized TLU is a ReLU. Training and inference compute the
    same function. Import `keras_norm` before loading a saved model that
    contains this layer.

        z = max(y, tau)                 affine=False
        z = max(y, alpha * y + tau)     affine=True

    `y` and `z` are `(batch, H, W, C)`; there is one `tau` and one `alpha`
    per channel. If `y = tau`, the gradient flows to `y`. With `max_value` the
    output is `min(z, max_value)`; above it, all gradients are zero.

    Args:
        axis: Integer, the channel axis. Defaults to -1.
        affine: Whether the threshold depends linearly on the input. Defaults to
            False.
        max_value: Float, at least 0, the cap of the output; None for no cap.
            Defaults to None.
        tau_initializer: Defaults to `"zeros"`.
        alpha_initializer: Defaults to `"zeros"`.
        tau_regularizer: Optional regularizer of `tau`.
        alpha_regularizer: Optional regularizer of `alpha`.
        tau_constraint: Optional constraint of `tau`.
        alpha_constraint: Optional constraint of `alpha`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored.
        mask: Ignored, and passed on.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis` or `max_value`, a rank
            below 2, or channels of unknown size.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[-2.0, -0.5, 1.0]])
    >>> tau = keras.initializers.Constant(-1.0)
    >>> z = keras_norm.TLU(tau_initializer=tau)(x)
    >>> keras.ops.convert_to_numpy(z)[0].tolist()
    [-1.0, -0.5, 1.0]

    Derivatives:
        Custom gradients, which are themselves differentiable. JAX's forward
        mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError.

    Relations:
        `TLU(y) = relu(y - tau) + tau`. A new TLU equals `relu`, and with
        `max_value=6` `relu6`.

    Reference:
        Singh and Krishnan, "Filter Response Normalization Layer", CVPR 2020,
        https://arxiv.org/abs/1911.09737, equation 3.
    """

    def __init__(
        self,
        axis=-1,
        affine=False,
        max_value=None,
        tau_initializer="zeros",
        alpha_initializer="zeros",
        tau_regularizer=None,
        alpha_regularizer=None,
        tau_constraint=None,
        alpha_constraint=None,
        **kwargs,
    ):
        super().__init__(axis=axis, **kwargs)
        self.affine = affine
        if max_value is not None:
            max_value = check_number("max_value", max_value, low=0)
        self.max_value = max_value
        self._declare_weight(
            "tau", tau_initializer, tau_regularizer, tau_constraint
        )
        self._declare_weight(
            "alpha", alpha_initializer, alpha_regularizer, alpha_constraint
        )
        self.tau = None
        self.alpha = None

    def build(self, input_shape):
        self._build_axes(input_shape)
        self.tau = self._create_weight("tau")
        if self.affine:
            self.alpha = self._create_weight("alpha")
        self.built = True

    def call(self, inputs, training=None, mask=None):
        y = self._widen(inputs)
        tau = self._per_channel(self.tau, y.dtype)
        if self.alpha is None:
            z = fused_ops.affine(y, self._plane_axes, tau=tau)
        else:
            alpha = self._per_channel(self.alpha, y.dtype)
            z = functional.threshold(y, alpha * y + tau)
        if self.max_value is not None:
            z = functional.cap(z, self.max_value)
        return functional.cast_finite(z, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(affine=self.affine, max_value=self.max_value)
        return config
