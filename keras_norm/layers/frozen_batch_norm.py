"""Batch normalization with constant moments and weights."""

import keras

from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._moving_moments import MovingMomentsLayer


@keras.saving.register_keras_serializable(package=PACKAGE)
class FrozenBatchNormalization(MovingMomentsLayer):
    """Batch normalization that always runs in inference mode.

    Use it in place of batch normalization to fine-tune a trained network with
    batches that are too small for batch moments, as in detection. Training and
    inference compute the same function for any `trainable` and `training`.
    Gradients flow to the input; weights have none. Import `keras_norm` before
    loading a saved model that contains this layer.

    With the weights of a batch normalization, `(C,)` each:

        y = gamma * (x - moving_mean) / sqrt(moving_variance + epsilon) + beta

    `x` and `y` are `(batch, H, W, C)`. The weights are, in this order, `gamma`,
    `beta`, `moving_mean` and `moving_variance`: `set_weights` accepts the
    weights of a `BatchNormalization`. This is Keras' own operation: on
    TensorFlow and JAX it loses digits if a mean is large compared with the
    spread.

    Args:
        axis: Integer, the channel axis. Defaults to -1.
        epsilon: Float, at least 0. Defaults to 1e-3.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        moving_mean_initializer: Defaults to `"zeros"`.
        moving_variance_initializer: Defaults to `"ones"`.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Ignored; accepted for compatibility with batch normalization.
        mask: Ignored, and passed on. The shape of `inputs` without the channel
            axis.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis` or `epsilon`, a rank
            below 2, channels of unknown size, or a mask of another rank.

    Example:

    >>> import keras, keras_norm
    >>> layer = keras_norm.FrozenBatchNormalization(
    ...     epsilon=0.0, moving_mean_initializer="ones"
    ... )
    >>> y = layer(keras.ops.array([[0.0], [3.0]]), training=True)
    >>> keras.ops.convert_to_numpy(y)[:, 0].tolist()
    [-1.0, 2.0]
    >>> len(layer.trainable_weights), len(layer.weights)
    (0, 4)

    Derivatives:
        Computed by the backend.

    Relations:
        With the same weights it equals `keras.layers.BatchNormalization` and
        `BatchNormalization` at inference, bit for bit in float32.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015,
        https://arxiv.org/abs/1502.03167, algorithm 2. torchvision has it as
        `FrozenBatchNorm2d`, with an epsilon of 1e-5.
    """

    infers_as_batch_norm = True
    _trains_weights = False

    def __init__(
        self,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        **kwargs,
    ):
        super().__init__(
            axis=axis,
            epsilon=epsilon,
            center=center,
            scale=scale,
            beta=(beta_initializer, None, None),
            gamma=(gamma_initializer, None, None),
            moving_mean_initializer=moving_mean_initializer,
            moving_variance_initializer=moving_variance_initializer,
            **kwargs,
        )

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._build_affine()
        self._build_moving()
        self.built = True

    def call(self, inputs, training=None, mask=None):
        return self._infer(self._widen(inputs), mask)

    def get_config(self):
        config = super().get_config()
        # Weights that are not trained have neither.
        for name in self._weight_names:
            del config[f"{name}_regularizer"], config[f"{name}_constraint"]
        return config
