"""Base class of layers with batch statistics, moving moments and replicas."""

import keras
from keras import ops

from keras_norm import distribution
from keras_norm import functional
from keras_norm import moments
from keras_norm import rematerialization
from keras_norm import step_scope
from keras_norm.layers._checks import check_choice
from keras_norm.layers._checks import check_number
from keras_norm.layers._moving_moments import MovingMomentsLayer

RENORM_CLIPS = ("rmin", "rmax", "dmax")


class BatchStatisticsLayer(MovingMomentsLayer):
    """Base class of layers that standardize with batch or moving moments.

    A subclass computes the moments of planes from its input and calls
    `_standardization` for the terms of `(x - center) * factor + offset`.
    `BatchNormalization` documents the arguments.
    """

    def __init__(
        self,
        momentum,
        synchronized,
        renorm=False,
        renorm_clipping=None,
        renorm_momentum=0.99,
        variance_correction=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum = check_number("momentum", momentum, low=0, high=1)
        self.synchronized = synchronized
        self.renorm = renorm
        self.renorm_clipping = _check_clipping(renorm_clipping)
        self.renorm_momentum = check_number(
            "renorm_momentum", renorm_momentum, low=0, high=1
        )
        self.variance_correction = check_choice(
            "variance_correction", variance_correction, (False, True)
        )
        self._forward_training = False

    def _build_moving(self):
        super()._build_moving()
        mean = self.moving_mean_initializer
        variance = self.moving_variance_initializer

        def stddev(shape, dtype=None):
            return ops.sqrt(_copy_initializer(variance)(shape, dtype=dtype))

        if self.renorm:
            self.moving_stddev = self._add_moving("moving_stddev", stddev)
            self.renorm_mean = self._add_moving(
                "renorm_mean", _copy_initializer(mean)
            )
            self.renorm_stddev = self._add_moving("renorm_stddev", stddev)

    def _learns_statistics(self, training):
        if training is None and rematerialization.is_recomputing():
            # `keras.remat(layer)` calls the layer again in the backward pass,
            # outside of the model that passed `training` on to it.
            training = self._forward_training
        self._forward_training = bool(training)
        return bool(training and self.trainable)

    def _standardization(self, planes, dtype):
        """Computes `(center, factor, offset)`, each `(1, 1, 1, C)`.

        `offset` may be None. Training updates the moving moments.

        Args:
            planes: Means, variances and counts of the planes in training, or
                None to use the moving moments.
            dtype: Dtype of the computation.
        """
        if planes is None:
            mean, variance = self._moving_moments(dtype)
            return mean, ops.rsqrt(variance + self.epsilon), None
        means, variances, counts = planes
        mean, variance, count = moments.batch_moments(
            means,
            variances,
            step_scope.zero_padding_counts(counts),
            distribution.all_reduce_sum if self.synchronized else None,
        )
        factor, offset = ops.rsqrt(variance + self.epsilon), None
        if self.renorm:
            self._check_not_recomputing()
            r, offset = functional.renorm_correction(
                mean,
                variance,
                self._per_channel(self.renorm_mean, dtype),
                self._per_channel(self.renorm_stddev, dtype),
                self.epsilon,
                self.renorm_clipping or {},
            )
            factor = factor * r
        self._update_moving(mean, variance, count)
        return mean, factor, offset

    def _check_not_recomputing(self):
        if rematerialization.is_recomputing():
            raise ValueError(
                "Batch Renormalization cannot be recomputed by `keras.remat` "
                "or `tf.recompute_grad`: its moving moments have changed since "
                "the forward pass. Create the layer in a `keras.RematScope` "
                f"instead. Received: layer={self.name!r}, renorm=True"
            )

    def _update_moving(self, mean, variance, count):
        """Updates the moving moments, weighting replica moments by counts."""
        if rematerialization.is_recomputing():
            return
        values = [ops.stop_gradient(mean), ops.stop_gradient(variance)]
        if self.variance_correction:
            # A single value has the variance 0 either way.
            unbiased = values[1] * (count / ops.maximum(count - 1.0, 1.0))
            values.append(unbiased)
        averaged = self.synchronized or step_scope.step_averages_state()
        if distribution.count_replicas() > 1 and not averaged:
            count, *sums = distribution.all_reduce_sum(
                [count, *[count * value for value in values]]
            )
            values = [s / ops.maximum(count, 1.0) for s in sums]
        # A batch without valid values changes nothing.
        moves = ops.where(count > 0, 1.0, 0.0)
        mean, variance, *unbiased = (ops.reshape(v, (-1,)) for v in values)
        stored = unbiased[0] if unbiased else variance
        moves = ops.cast(ops.reshape(moves, (-1,)), mean.dtype)
        rate = moves * (1.0 - self.momentum)
        _move(self.moving_mean, mean, rate)
        if not self.renorm:
            _move(self.moving_variance, stored, rate)
            return
        renorm_rate = moves * (1.0 - self.renorm_momentum)
        _move(self.renorm_mean, mean, renorm_rate)
        stddev = ops.sqrt(variance + self.epsilon)
        _move(self.renorm_stddev, stddev, renorm_rate)
        stddev = ops.sqrt(stored + self.epsilon)
        stddev = _move(self.moving_stddev, stddev, rate)
        moved = ops.relu(ops.square(stddev) - self.epsilon)
        self.moving_variance.assign(moved)

    def get_config(self):
        config = super().get_config()
        config.update(momentum=self.momentum, synchronized=self.synchronized)
        return config

    def _renorm_config(self):
        return {
            "renorm": self.renorm,
            "renorm_clipping": self.renorm_clipping,
            "renorm_momentum": self.renorm_momentum,
        }


def _move(weight, moment, rate):
    """Moves a moving moment toward `moment` and returns its new value."""
    # The policy may keep weights in another dtype than it computes in.
    moment, rate = (ops.cast(v, weight.dtype) for v in (moment, rate))
    moved = weight + rate * (moment - weight)
    weight.assign(moved)
    return moved


def _copy_initializer(initializer):
    """Copies an initializer; a seeded one must draw the same values again."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    return initializer.__class__.from_config(initializer.get_config())


def _check_clipping(clipping):
    clipping = clipping or {}
    unknown = sorted(set(clipping) - set(RENORM_CLIPS))
    if unknown:
        raise ValueError(
            f"`renorm_clipping` takes the keys {', '.join(RENORM_CLIPS)}. "
            f"Received: renorm_clipping={clipping}"
        )
    rmin, rmax, dmax = (clipping.get(key) for key in RENORM_CLIPS)
    if rmin is not None and rmax is not None and rmax < rmin:
        raise ValueError(
            "`rmax` must not be below `rmin`. "
            f"Received: renorm_clipping={clipping}"
        )
    if dmax is not None and dmax < 0:
        raise ValueError(
            f"`dmax` must not be negative. Received: renorm_clipping={clipping}"
        )
    return dict(clipping) or None
