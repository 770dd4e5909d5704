"""Least squares per channel: the scale and offset that map x to y."""

import numpy as np

# A channel whose variance is below this share of the layer's mean variance is
# constant: no scale can be fitted.
DEAD_SHARE = 1e-10


class ChannelFit:
    """Accumulates `y ~ scale * x + offset` per channel, in float64.

    Sums are taken around the first batch's means, so that values far from zero
    lose no digits.

    Args:
        num_channels: Number of channels `C`.
        fit_scale: If False, the scale is 1.
        fit_offset: If False, the offset is 0.
    """

    def __init__(self, num_channels, fit_scale=True, fit_offset=True):
        self.num_channels = num_channels
        self.fit_scale = fit_scale
        self.fit_offset = fit_offset
        self.num_values = 0.0
        self.center = None
        self.sums = np.zeros((2, num_channels))
        self.products = np.zeros((3, num_channels))

    def add(self, x, y, valid=None):
        """Adds values of shape `(rows, C)`.

        Args:
            x: Array, the values to transform.
            y: Array, the values to approximate.
            valid: Boolean array `(rows,)`; rows that are False do not count.
        """
        x, y = (np.asarray(values, "float64") for values in (x, y))
        if valid is not None:
            x, y = x[valid], y[valid]
        if not len(x):
            return
        if self.center is None:
            self.center = x.mean(axis=0), y.mean(axis=0)
        x, y = x - self.center[0], y - self.center[1]
        self.num_values += len(x)
        self.sums += x.sum(axis=0), y.sum(axis=0)
        self.products += (
            np.einsum("nc,nc->c", x, x),
            np.einsum("nc,nc->c", x, y),
            np.einsum("nc,nc->c", y, y),
        )

    def solve(self):
        """Returns `(scale, offset)`, float64 arrays `(C,)`."""
        mean_x, mean_y = self.sums / self.num_values
        xx, xy, _ = self._moments()
        if not self.fit_scale:
            scale = np.ones_like(xx)
        elif self.fit_offset:
            scale = np.where(
                xx > _floor(xx), xy / np.where(xx > 0, xx, 1.0), 0.0
            )
        else:
            # The line through the origin, in the original values.
            x0, y0 = self.center[0] + mean_x, self.center[1] + mean_y
            square = xx + x0**2
            scale = np.where(
                square > 0, (xy + x0 * y0) / np.where(square > 0, square, 1), 0
            )
        offset = self.center[1] + mean_y - scale * (self.center[0] + mean_x)
        return scale, offset if self.fit_offset else np.zeros_like(offset)

    @property
    def num_constant(self):
        """Number of channels whose `x` is constant while `y` is not."""
        xx, _, yy = self._moments()
        return int(np.sum((xx <= _floor(xx)) & (yy > _floor(yy))))

    def explained_variance(self, scale, offset):
        """Returns the share of the variance of `y` that a line explains.

        It is `1 - mean((scale * x + offset - y)^2) / mean((y - mean(y))^2)`,
        both summed over the channels: 1 for a perfect fit, below 0 for a line
        that is worse than the mean of `y`.

        Args:
            scale, offset: Arrays `(C,)`, or numbers.
        """
        mean_x, mean_y = self.sums / self.num_values
        xx, xy, yy = self._moments()
        bias = scale * (self.center[0] + mean_x) + offset
        bias = bias - self.center[1] - mean_y
        error = (scale**2 * xx - 2.0 * scale * xy + yy + bias**2).sum()
        total = yy.sum()
        if total == 0:
            return 1.0 if error == 0 else -np.inf
        return float(1.0 - max(error, 0.0) / total)

    def _moments(self):
        """Returns the variances and the covariance of `x` and `y`."""
        mean_x, mean_y = self.sums / self.num_values
        xx, xy, yy = self.products / self.num_values
        return (
            np.maximum(xx - mean_x**2, 0.0),
            xy - mean_x * mean_y,
            np.maximum(yy - mean_y**2, 0.0),
        )


def _floor(variance):
    return DEAD_SHARE * max(variance.mean(), np.finfo("float64").tiny)
