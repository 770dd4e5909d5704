"""Moments of channels over any number of batches, in float64 NumPy.

Sums are centered: the moments of blocks are merged by the formula of Chan,
Golub and LeVeque ("Algorithms for Computing the Sample Variance", 1983,
equation 2.1), so that nothing is lost where a mean is large compared with the
spread.
"""

import numpy as np

# Values in a block, few enough to stay in the cache of a processor.
BLOCK_VALUES = 2**17


class ChannelMoments:
    """Number, mean and sum of squared deviations of each channel's values.

    Attributes:
        count: Float64 array `(C,)`.
        mean: Float64 array `(C,)`.
        squares: Float64 array `(C,)`, the sum of `(x - mean)^2`.
    """

    def __init__(self, num_channels):
        self.count = np.zeros(num_channels)
        self.mean = np.zeros(num_channels)
        self.squares = np.zeros(num_channels)

    @property
    def variance(self):
        """The biased variance, `(C,)`; 0 without values."""
        return self.squares / np.maximum(self.count, 1.0)

    def add(self, x, valid=None):
        """Adds values.

        Args:
            x: Array `(..., C)` of any float dtype.
            valid: Boolean array that broadcasts against `x`, or None. Values
                that are not valid do not count, NaN included.
        """
        num_channels = x.shape[-1]
        rows = x.reshape(-1, num_channels)
        if valid is not None:
            valid = np.broadcast_to(valid, x.shape).reshape(-1, num_channels)
        length = max(BLOCK_VALUES // num_channels, 1)
        for start in range(0, len(rows), length):
            block = rows[start : start + length].astype(np.float64)
            if valid is None:
                self._add_block(block)
            else:
                self._add_block(block, valid[start : start + length])

    def _add_block(self, block, valid=None):
        if valid is None:
            count = np.full(block.shape[1], float(len(block)))
            mean = block.mean(axis=0)
            block -= mean
        else:
            count = valid.sum(axis=0, dtype=np.float64)
            block = np.where(valid, block, 0.0)
            mean = block.sum(axis=0) / np.maximum(count, 1.0)
            block = np.where(valid, block - mean, 0.0)
        self.merge(count, mean, np.einsum("ij,ij->j", block, block))

    def merge(self, count, mean, squares):
        """Adds the values behind other moments, each `(C,)`."""
        total = self.count + count
        share = count / np.maximum(total, 1.0)
        distance = mean - self.mean
        self.squares += squares + distance**2 * self.count * share
        self.mean += distance * share
        self.count = total


def plane_moments(x, valid=None):
    """Computes the moments of every plane in float64.

    Args:
        x: Array `(N, P, C)`: examples, positions, channels.
        valid: Boolean array that broadcasts against `x`, or None.

    Returns:
        `(mean, variance, count)`, each `(N, C)`.
    """
    x = x.astype(np.float64)
    valid = np.broadcast_to(True if valid is None else valid, x.shape)
    count = valid.sum(axis=1, dtype=np.float64)
    divisor = np.maximum(count, 1.0)
    mean = np.where(valid, x, 0.0).sum(axis=1) / divisor
    deviation = np.where(valid, x - mean[:, None], 0.0)
    return mean, np.einsum("npc,npc->nc", deviation, deviation) / divisor, count


def combine(means, variances, weights):
    """Combines the moments of groups by the law of total variance.

        mean     = sum(w_i * mean_i)
        variance = sum(w_i * (variance_i + (mean_i - mean)^2))

    Args:
        means: Sequence of arrays `(C,)`, one for each group.
        variances: Sequence of arrays `(C,)`.
        weights: Sequence of numbers, divided by their sum.

    Returns:
        `(mean, variance)`, two float64 arrays `(C,)`.
    """
    means, variances = (np.asarray(v, np.float64) for v in (means, variances))
    weights = np.asarray(weights, np.float64)[:, None] / np.sum(weights)
    mean = np.sum(weights * means, axis=0)
    spread = variances + (means - mean) ** 2
    return mean, np.sum(weights * spread, axis=0)
