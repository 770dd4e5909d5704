"""EvalNorm: batch normalization that evaluates as it trains."""

import keras
from keras import ops

from keras_norm import distribution
from keras_norm import functional
from keras_norm import moments
from keras_norm import rematerialization
from keras_norm import step_scope
from keras_norm.layers._batch_statistics import BatchStatisticsLayer
from keras_norm.layers._channel_layer import PACKAGE
from keras_norm.layers._checks import check_number


@keras.saving.register_keras_serializable(package=PACKAGE)
class EvalNorm(BatchStatisticsLayer):
    """Batch normalization that also evaluates with each example's moments.

    Use it if batches are small: in training, batch moments depend strongly on
    the example itself; at inference, moving moments do not depend on it at all.
    EvalNorm trains like batch normalization and changes only inference, where
    examples do not affect each other. Import `keras_norm` before loading a
    saved model that contains this layer.

    In training, with the moments over batch and positions, `(1, 1, 1, C)`:

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    At inference, with the moments of an example's plane, `(batch, 1, 1, C)`,
    the moving moments, and two scalars per layer, `a = mean_mix` and
    `b = variance_mix`:

        mean     = a * mean_i + (1 - a) * moving_mean
        variance = b * variance_i + (1 - b) * moving_variance
                   + a * (1 - a) * (mean_i - moving_mean)^2

    Both scalars are learned in training so that inference outputs approach
    training outputs: each step moves them down the gradient of the mean squared
    difference, before gamma and beta, and keeps them in [0, 1]. They are
    non-trainable weights: optimizers, weight decay and clipping do not affect
    them, and they do not affect the gradients of the model.

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
        mean_mix_initializer: Of `a`. Defaults to `"zeros"`, which evaluates as
            batch normalization does.
        variance_mix_initializer: Of `b`. Defaults to `"zeros"`.
        mix_learning_rate: Float, at least 0: the step of both scalars. 0 keeps
            them as they start. Defaults to 0.05.
        *_regularizer, *_constraint: Optional, for `beta` and `gamma`.
        synchronized: Whether training computes moments over the global batch.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Float tensor.
        training: Whether to normalize with batch moments and update the moving
            moments and the two scalars.
        mask: Optional boolean tensor, the shape of `inputs` without the channel
            axis. Positions that are False do not count in any moment.

    Input shape:
        `(batch, ..., channels)`, rank 2 or higher, or `channels` at `axis`.

    Output shape:
        The input's shape, in the compute dtype of the layer's policy.

    Raises:
        ValueError: for an unknown keyword, a bad `axis`, `epsilon`, `momentum`
            or `mix_learning_rate`, a rank below 2, or channels of unknown size.

    Example:

    >>> import keras, keras_norm
    >>> layer = keras_norm.EvalNorm(
    ...     epsilon=0.0,
    ...     mean_mix_initializer="ones",
    ...     variance_mix_initializer="ones",
    ... )
    >>> x = keras.ops.array([[[3.0], [5.0]]])
    >>> keras.ops.convert_to_numpy(layer(x)).ravel().tolist()
    [-1.0, 1.0]

    Derivatives:
        Custom gradients, which are themselves differentiable. JAX's forward
        mode (`jax.jvp`, `jax.jacfwd`) raises a TypeError.

    Relations:
        With both scalars 0 it equals `BatchNormalization`; with both 1 it
        evaluates as instance normalization.

    Departures from the paper:
        The layer computes the gradient of the scalars itself; the paper trains
        them with an auxiliary loss. The initial values and the step size are
        not from the paper.

    Reference:
        Singh and Shrivastava, "EvalNorm: Estimating Batch Normalization
        Statistics for Evaluation", ICCV 2019,
        https://arxiv.org/abs/1904.06031.
    """

    neutral_at_zero = ("mean_mix", "variance_mix")

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
        mean_mix_initializer="zeros",
        variance_mix_initializer="zeros",
        mix_learning_rate=0.05,
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
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
        self.mean_mix_initializer = keras.initializers.get(mean_mix_initializer)
        self.variance_mix_initializer = keras.initializers.get(
            variance_mix_initializer
        )
        self.mix_learning_rate = check_number(
            "mix_learning_rate", mix_learning_rate, low=0
        )

    def build(self, input_shape):
        self._build_axes(input_shape)
        self._build_affine()
        self._build_moving()
        self.mean_mix = self._add_moving(
            "mean_mix", self.mean_mix_initializer, ()
        )
        self.variance_mix = self._add_moving(
            "variance_mix", self.variance_mix_initializer, ()
        )
        self.built = True

    def call(self, inputs, training=None, mask=None):
        x = self._widen(inputs)
        planes = moments.plane_moments(
            x, self._plane_axes, self._valid(x, mask)
        )
        if self._learns_statistics(training):
            center, factor, _ = self._standardization(planes, x.dtype)
            if self.mix_learning_rate:
                self._learn_mix(planes, center, factor)
        else:
            center, variance = functional.mix_moments(
                *planes[:2], *self._moving_moments(x.dtype), *self._mix(x.dtype)
            )
            factor = ops.rsqrt(variance + self.epsilon)
        return self._transform(x, center, factor)

    def _mix(self, dtype):
        return [ops.cast(m, dtype) for m in (self.mean_mix, self.variance_mix)]

    def _learn_mix(self, planes, batch_mean, batch_factor):
        """Takes one step of both scalars, over the planes of every replica."""
        if rematerialization.is_recomputing():
            return
        mean, variance, count, batch_mean, batch_factor = (
            ops.stop_gradient(v) for v in (*planes, batch_mean, batch_factor)
        )
        gradients = functional.mix_gradient(
            mean,
            variance,
            batch_mean,
            batch_factor,
            *self._moving_moments(mean.dtype),
            *self._mix(mean.dtype),
            self.epsilon,
        )
        count = step_scope.zero_padding_counts(count) * ops.ones_like(mean)
        sums = [ops.sum(count), *(ops.sum(count * g) for g in gradients)]
        if not step_scope.step_averages_state():
            sums = distribution.all_reduce_sum(sums)
        total, *sums = sums
        num_values = ops.maximum(total, 1.0)
        weights = self.mean_mix, self.variance_mix
        for weight, gradient in zip(weights, sums, strict=True):
            step = self.mix_learning_rate * gradient / num_values
            moved = weight - ops.cast(step, weight.dtype)
            weight.assign(ops.clip(moved, 0.0, 1.0))

    def get_config(self):
        config = super().get_config()
        config.update(
            mean_mix_initializer=keras.initializers.serialize(
                self.mean_mix_initializer
            ),
            variance_mix_initializer=keras.initializers.serialize(
                self.variance_mix_initializer
            ),
            mix_learning_rate=self.mix_learning_rate,
        )
        return config
