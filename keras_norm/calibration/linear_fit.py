"""Refits a convolution or dense layer behind converted norms."""

import numpy as np
from keras import ops

from keras_norm.calibration.linear_layers import LinearForm
from keras_norm.calibration.ridge import RidgeFit

# Rows of the regression, over all batches.
MAX_ROWS = 40_000
# Values of one batch's rows: they are float64.
MAX_VALUES = 2**24


def refit_linear(old, new, inputs, strength, generator):
    """Assigns the weights with which a layer approximates the original layer.

    Ridge regression from the converted model's inputs of the layer to the
    original layer's outputs, before its activation.

    Args:
        old, new: The layer in both models.
        inputs: List of batches, each the layer's inputs `(old, new)` in both
            models.
        strength: Float, the ridge penalty (`RidgeFit`).
        generator: NumPy generator that draws the rows.
    """
    old_form, new_form = LinearForm(old), LinearForm(new)
    old_kernel, old_bias = old_form.weights()
    fit = RidgeFit(*new_form.weights())
    for batch in inputs:
        old_x, new_x = map(_to_array, batch)
        limit = min(
            MAX_ROWS // len(inputs),
            MAX_VALUES // old_form.num_values_per_row(old_x),
        )
        chosen = _Choice(generator, max(limit, 1))
        targets = old_form.rows(old_x, chosen) @ old_kernel
        if old_bias is not None:
            targets += old_bias[:, None]
        fit.add(new_form.rows(new_x, chosen), targets)
    new_form.assign(*fit.solve(strength))


class _Choice:
    """Draws row numbers once, and returns the same ones again."""

    def __init__(self, generator, limit):
        self.generator = generator
        self.limit = limit
        self.indices = None

    def __call__(self, num_rows):
        if self.indices is None:
            self.indices = np.arange(num_rows)
            if num_rows > self.limit:
                self.indices = self.generator.choice(
                    num_rows, self.limit, replace=False
                )
        return self.indices


def _to_array(tensor):
    array = ops.convert_to_numpy(ops.cast(tensor, "float32"))
    return array.astype("float64")
