"""Batch normalization that is correct under several replicas."""

import keras

from keras_norm import moments
from keras_norm.layers._batch_statistics import BatchStatisticsLayer
from keras_norm.layers._channel_layer import PACKAGE


@keras.saving.register_keras_serializable(package=PACKAGE)
class BatchNormalization(BatchStatisticsLayer):
    """Batch normalization with the same statistics on every replica.

    A drop-in replacement for `keras.layers.BatchNormalization`: the same
    arguments, weights and numbers on one device, and `variance_correction`.
    It differs as follows: under
    `tf.distribute` the moving statistics agree on every replica, with or
    without `synchronized`, so a saved model is the model that was evaluated;
    masks work together with `synchronized` and on any axis; an empty
    per-replica batch changes nothing. Import `keras_norm` before loading a
    saved model that contains this layer.

    In training, with the moments over batch and positions, `(1, 1, 1, C)`:

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta
        moving <- momentum * moving + (1 - momentum) * moment

    At inference, and if `trainable` is False, the moving moments replace the
    batch moments. This is Keras' own operation, bit for bit: on TensorFlow and
    JAX it loses digits if a mean is large compared with the spread; training
    does not. With `synchronized`, moments are computed over the global batch.
    Without it, every replica normalizes with its own moments, and the moving
    moments are updated by the mean of all replicas' moments, weighted by their
    number of values.

    Args:
        axis: Integer, the channel axis. Defaults to -1.
        momentum: Float in [0, 1]. Defaults to 0.99.
        epsilon: Float, at least 0. Defaults to 1e-3.
        center: Whether to add `beta`. Defaults to True.
        scale: Whether to multiply by `gamma`. Defaults to True.
        beta_initializer: Defaults to `"zeros"`.
        gamma_initializer: Defaults to `"ones"`.
        moving_mean_initializer: Defaults to `"zeros"`.
        moving_variance_initializer: Defaults to `"ones"`.
        beta_regularizer: Optional regularizer of `beta`.
        gamma_regularizer: Optional regularizer of `gamma`.
        beta_constraint: Optional constraint of `beta`.
        gamma_constraint: Optional constraint of `gamma`.
        renorm: Whether to use Batch Renormalization in training.
        renorm_clipping: Optional dict with any of `rmin`, `rmax`, `dmax`.
        renorm_momentum: Float in [0, 1], of the moments that renormalize.
        synchronized: Whether to compute moments over the global batch.
            Defaults to False.
        variance_correction: Whether `moving_variance` follows the unbiased
            variance, `variance * N / (N - 1)`, with the number `N` of values
            behind a channel's moments: of the batch or, if synchronized, of the
            global batch, without masked positions. With a single value it is 0
            either way. Outputs of training do not change. Defaults to False, as
            in Keras.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Whether to normalize with batch moments and update the moving
            moments.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in the moments.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis`, `epsilon`, `momentum`
            or `renorm_clipping`, a rank below 2, or channels of unknown size.

    Example:

    >>> import keras, keras_norm
    >>> x = keras.ops.array([[0.0], [2.0]])
    >>> y = keras_norm.BatchNormalization(epsilon=0.0)(x, training=True)
    >>> keras.ops.convert_to_numpy(y)[:, 0].tolist()
    [-1.0, 1.0]

    Derivatives:
        Custom gradients in training, which are themselves differentiable. JAX's
        forward mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError in training.

    Relations:
        On one device it equals `keras.layers.BatchNormalization`, up to
        rounding in training, bit for bit at inference in float32. Two
        replicas with `synchronized` equal one device at the same global batch.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015,
        https://arxiv.org/abs/1502.03167, algorithms 1 and 2; Ioffe, "Batch
        Renormalization", 2017, https://arxiv.org/abs/1702.03275, algorithm 1.
    """

    infers_as_batch_norm = True

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
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        renorm=False,
        renorm_clipping=None,
        renorm_momentum=0.99,
        synchronized=False,
        variance_correction=False,
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
            variance_correction=variance_correction,
            **kwargs,
        )

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._build_affine()
        self._build_moving()
        self.built = True

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        if not self._learns_statistics(training):
            return self._infer(x, mask)
        planes = moments.plane_moments(
            x, self._plane_axes, self._valid(x, mask)
        )
        center, factor, offset = self._standardization(planes, x.dtype)
        return self._transform(x, center, factor, offset)

    def get_config(self):
        config = {**super().get_config(), **self._renorm_config()}
        config["variance_correction"] = self.variance_correction
        return config
