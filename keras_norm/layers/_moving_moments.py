"""Base class of layers with moving moments, and inference with them."""

import keras
from keras import ops

from keras_norm import functional
from keras_norm.layers import _masks
from keras_norm.layers._channel_layer import AffineChannelLayer
from keras_norm.moments import widened_dtype


class MovingMomentsLayer(AffineChannelLayer):
    """Base class of affine channel layers with a moving mean and variance.

    Args:
        moving_mean_initializer: Of `moving_mean`.
        moving_variance_initializer: Of `moving_variance`.
        **kwargs: As in `AffineChannelLayer`.
    """

    def __init__(
        self, moving_mean_initializer, moving_variance_initializer, **kwargs
    ):
        super().__init__(**kwargs)
        self.moving_mean_initializer = keras.initializers.get(
            moving_mean_initializer
        )
        self.moving_variance_initializer = keras.initializers.get(
            moving_variance_initializer
        )

    def _build_moving(self):
        self.moving_mean = self._add_moving(
            "moving_mean", self.moving_mean_initializer
        )
        self.moving_variance = self._add_moving(
            "moving_variance", self.moving_variance_initializer
        )

    def _add_moving(self, name, initializer, shape=None):
        # At least float32: the variance of float16 values overflows float16.
        # No aggregation: assigned values are already equal on every replica.
        return self.add_weight(
            name=name,
            shape=(self._num_channels,) if shape is None else shape,
            initializer=initializer,
            dtype=widened_dtype(self.variable_dtype),
            trainable=False,
            autocast=False,
        )

    def _moving_moments(self, dtype):
        return (
            self._per_channel(self.moving_mean, dtype),
            self._per_channel(self.moving_variance, dtype),
        )

    def _infer(self, x, mask):
        """Normalizes with the moving moments.

        Uses the operation of `keras.layers.BatchNormalization`, to be equal bit
        for bit: another order of the same steps rounds differently.
        """
        mask = _masks.convert_mask(mask)
        if mask is not None:
            _masks.find_missing_axis(mask, x, self._channel_axis)
        mean, variance, beta, gamma = (
            None if weight is None else ops.cast(weight, x.dtype)
            for weight in (
                self.moving_mean,
                self.moving_variance,
                self.beta,
                self.gamma,
            )
        )
        y = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=self.axis,
            offset=beta,
            scale=gamma,
            epsilon=self.epsilon,
        )
        return functional.cast_finite(y, self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            moving_mean_initializer=keras.initializers.serialize(
                self.moving_mean_initializer
            ),
            moving_variance_initializer=keras.initializers.serialize(
                self.moving_variance_initializer
            ),
        )
        return config
