"""Ridge regression towards given weights, in float64."""

import numpy as np


class RidgeFit:
    """Accumulates `T ~ P W + b` for several groups, and solves it near `W0`.

    Minimizes `|P W + b - T|^2 + lam * trace(P'P) / d * |W - W0|^2` for each
    group, with the columns of `P` and `T` centered if there is a bias. The
    penalty pulls towards the start weights, not towards zero: what the data do
    not determine stays as it is.

    Args:
        kernel: Array `(groups, d, k)`, the start weights `W0`.
        bias: Array `(groups, k)`, or None for a layer without bias.
    """

    def __init__(self, kernel, bias):
        self.kernel = np.asarray(kernel, "float64")
        self.bias = None if bias is None else np.asarray(bias, "float64")
        groups, d, k = self.kernel.shape
        self.num_rows = 0
        self.gram = np.zeros((groups, d, d))
        self.cross = np.zeros((groups, d, k))
        self.row_sum = np.zeros((groups, d))
        self.error_sum = np.zeros((groups, k))

    def add(self, rows, targets):
        """Adds rows `P` `(groups, n, d)` and their targets `(groups, n, k)`."""
        rows = np.asarray(rows, "float64")
        error = np.asarray(targets, "float64") - rows @ self.kernel
        if self.bias is not None:
            error -= self.bias[:, None]
        transposed = rows.swapaxes(1, 2)
        self.num_rows += rows.shape[1]
        self.gram += transposed @ rows
        self.cross += transposed @ error
        self.row_sum += rows.sum(axis=1)
        self.error_sum += error.sum(axis=1)

    def solve(self, strength):
        """Returns `(kernel, bias)` in the shapes of the start weights.

        Args:
            strength: Float above 0, `lam` above.
        """
        gram, cross = self.gram, self.cross
        mean_row = self.row_sum / self.num_rows
        mean_error = self.error_sum / self.num_rows
        if self.bias is not None:
            outer = mean_row[:, :, None] * mean_row[:, None]
            gram = gram - self.num_rows * outer
            outer = mean_row[:, :, None] * mean_error[:, None]
            cross = cross - self.num_rows * outer
        d = gram.shape[-1]
        penalty = strength * np.trace(gram, axis1=1, axis2=2) / d
        # Rows that are all equal determine the bias alone.
        penalty = np.where(penalty > 0, penalty, 1.0)
        regularized = gram + penalty[:, None, None] * np.eye(d)
        change = np.linalg.solve(regularized, cross)
        if self.bias is None:
            return self.kernel + change, None
        shift = mean_error - np.einsum("gd,gdk->gk", mean_row, change)
        return self.kernel + change, self.bias + shift
