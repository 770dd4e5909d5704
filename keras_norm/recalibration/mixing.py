"""Offline estimate of EvalNorm's two mixing values."""

import numpy as np

from keras_norm.recalibration.channel_moments import ChannelMoments

MAX_STEPS = 50
TOLERANCE = 1e-7
_START = (0.0, 0.25, 0.5, 0.75, 1.0)


def estimate_mixing(layer, batches, mean, variance):
    """Estimates the mixing values that evaluate most like training.

    Minimizes the mean squared difference, before gamma and beta, between the
    outputs of training, with the moments of the batch, and of evaluation, with
    mixed moments, over all examples, positions and channels. The weights of the
    network stay as they are. The estimate depends on the size of the batches:
    with batches of everything both values are 0.

    Args:
        layer: The `EvalNorm`.
        batches: List of `(mean, variance, count)` of the planes of each batch,
            each `(N, C)`.
        mean, variance: The moving moments, `(C,)`.

    Returns:
        `(mean_mix, variance_mix)`, two floats in [0, 1].

    Reference:
        Singh and Shrivastava, "EvalNorm: Estimating Batch Normalization
        Statistics for Evaluation", ICCV 2019,
        https://arxiv.org/abs/1904.06031.
    """
    size = max(len(planes[0]) for planes in batches)
    full = [planes for planes in batches if len(planes[0]) == size]
    problem = _Problem(layer.epsilon, full, mean, variance)
    mix = min(
        (np.array([a, b]) for a in _START for b in _START), key=problem.loss
    )
    damping, loss = 1e-3, problem.loss(mix)
    for _ in range(MAX_STEPS):
        gradient, curvature = problem.derivatives(mix)
        # A value at a bound that the gradient pushes it against stays.
        free = ~(((mix <= 0) & (gradient > 0)) | ((mix >= 1) & (gradient < 0)))
        step = np.zeros(2)
        damped = curvature + damping * np.diag(np.diag(curvature) + 1e-30)
        step[free] = np.linalg.lstsq(
            damped[np.ix_(free, free)], gradient[free], rcond=None
        )[0]
        moved = np.clip(mix - step, 0.0, 1.0)
        new_loss = problem.loss(moved)
        if new_loss > loss:
            damping *= 10
            if damping > 1e8:
                break
            continue
        change = np.max(np.abs(moved - mix))
        mix, loss, damping = moved, new_loss, damping / 10
        if change < TOLERANCE:
            break
    return float(mix[0]), float(mix[1])


class _Problem:
    """Sum of squared residuals over planes, two for each plane.

    With the mixed moments `m` and `v` and `s = 1 / sqrt(v + epsilon)`:

        sqrt(variance_i) * (s - batch_factor)
        s * (mean_i - m) - batch_factor * (mean_i - batch_mean)
    """

    def __init__(self, epsilon, batches, mean, variance):
        self.epsilon = epsilon
        self.moving = mean, variance
        self.batches = [
            (*planes, *_batch_terms(*planes, epsilon)) for planes in batches
        ]

    def loss(self, mix):
        return sum(
            float(np.sum(count * (r1**2 + r2**2)))
            for count, r1, r2, _, _ in self._residuals(mix)
        )

    def derivatives(self, mix):
        """Returns the gradient and the Gauss-Newton curvature."""
        gradient, curvature = np.zeros(2), np.zeros((2, 2))
        for count, r1, r2, by_1, by_2 in self._residuals(mix):
            for r, by in ((r1, by_1), (r2, by_2)):
                gradient += [np.sum(count * r * d) for d in by]
                curvature += [[np.sum(count * d * e) for e in by] for d in by]
        return gradient, curvature

    def _residuals(self, mix):
        a, b = mix
        for mean, variance, count, center, factor in self.batches:
            moving_mean, moving_variance = self.moving
            distance = mean - moving_mean
            v = b * variance + (1 - b) * moving_variance
            v = v + a * (1 - a) * distance**2
            s = 1 / np.sqrt(v + self.epsilon)
            rest = (1 - a) * distance
            spread = np.sqrt(variance)
            r1 = spread * (s - factor)
            r2 = s * rest - factor * (mean - center)
            s_by_v = -0.5 * s**3
            s_by_a = s_by_v * (1 - 2 * a) * distance**2
            s_by_b = s_by_v * (variance - moving_variance)
            by_1 = spread * s_by_a, spread * s_by_b
            by_2 = s_by_a * rest - s * distance, s_by_b * rest
            yield count, r1, r2, by_1, by_2


def _batch_terms(mean, variance, count, epsilon):
    """Returns the batch's mean and `1 / sqrt(variance + epsilon)`, `(C,)`."""
    merged = ChannelMoments(mean.shape[1])
    for plane in zip(count, mean, variance * count, strict=True):
        merged.merge(*plane)
    return merged.mean, 1 / np.sqrt(merged.variance + epsilon)
