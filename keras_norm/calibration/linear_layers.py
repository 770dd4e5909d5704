"""Convolutions and dense layers as products of rows and a matrix."""

import keras
import numpy as np

from keras_norm import variables
from keras_norm.calibration.patches import extract_patches

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_LINEAR = (*_CONVOLUTIONS, *_DEPTHWISE, keras.layers.Dense)


def is_refittable(layer):
    """Returns True for a dense layer or convolution whose kernel may change.

    A subclass counts if it inherits `call`. A layer with a constraint, LoRA or
    quantized weights keeps its kernel.
    """
    base = next((cls for cls in _LINEAR if isinstance(layer, cls)), None)
    if base is None or type(layer).call is not base.call:
        return False
    constraints = [
        getattr(layer, f"{name}_constraint", None)
        for name in ("kernel", "depthwise", "bias")
    ]
    return (
        not any(constraints)
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
    )


class LinearForm:
    """A layer's weights and inputs as `rows @ kernel + bias`, in groups.

    Args:
        layer: A layer for which `is_refittable` is True.
    """

    def __init__(self, layer):
        self.layer = layer
        self.is_depthwise = isinstance(layer, _DEPTHWISE)
        self.is_convolution = self.is_depthwise or isinstance(
            layer, _CONVOLUTIONS
        )

    def weights(self):
        """Returns `(kernel, bias)`, `(groups, d, k)` and `(groups, k)`."""
        kernel = variables.read_copy(self.layer.kernel).astype("float64")
        kernel = self._to_groups(kernel)
        if not self.layer.use_bias:
            return kernel, None
        bias = variables.read_copy(self.layer.bias).astype("float64")
        return kernel, bias.reshape(len(kernel), -1)

    def assign(self, kernel, bias):
        """Assigns weights in the shapes of `weights`."""
        shape = tuple(self.layer.kernel.shape)
        if self.is_depthwise:
            kernel = kernel.transpose(1, 0, 2).reshape(shape)
        else:
            groups, d, k = kernel.shape
            rows = d // shape[-2]
            kernel = kernel.reshape(groups, rows, shape[-2], k)
            kernel = kernel.transpose(1, 2, 0, 3).reshape(shape)
        variables.assign_copy(self.layer.kernel, kernel)
        if bias is not None:
            variables.assign_copy(self.layer.bias, bias.ravel())

    def rows(self, x, choose=None):
        """Returns the layer's rows `(groups, n, d)` for a batch of inputs.

        Args:
            x: Array, the layer's inputs.
            choose: Function from the number of rows to the indices of the rows
                to return, or None for all.
        """
        if not self.is_convolution:
            rows = x.reshape(-1, x.shape[-1])
            return (
                rows[None] if choose is None else rows[choose(len(rows))][None]
            )
        layer = self.layer
        if layer.data_format == "channels_first":
            x = np.moveaxis(x, 1, -1)
        patches = extract_patches(
            x,
            layer.kernel_size,
            layer.strides,
            layer.dilation_rate,
            layer.padding,
        )
        num_axes = len(layer.kernel_size) + 1
        positions = patches.shape[:num_axes]
        num_rows = int(np.prod(positions))
        indices = np.arange(num_rows) if choose is None else choose(num_rows)
        # Indexing before reshaping copies the chosen patches alone.
        rows = patches[np.unravel_index(indices, positions)]
        rows = rows.reshape(len(indices), -1, x.shape[-1])
        if self.is_depthwise:
            return rows.transpose(2, 0, 1)
        n, size, _ = rows.shape
        rows = rows.reshape(n, size, layer.groups, -1)
        return rows.transpose(2, 0, 1, 3).reshape(layer.groups, n, -1)

    def num_values_per_row(self, x):
        """Returns the number of values that one row holds, over all groups."""
        if not self.is_convolution:
            return x.shape[-1]
        channels = x.shape[1 if self._is_channels_first() else -1]
        return int(np.prod(self.layer.kernel_size)) * channels

    def _is_channels_first(self):
        return self.layer.data_format == "channels_first"

    def _to_groups(self, kernel):
        if self.is_depthwise:
            # (positions..., C, multiplier) to (C, positions, multiplier).
            channels, multiplier = kernel.shape[-2:]
            return kernel.reshape(-1, channels, multiplier).transpose(1, 0, 2)
        groups = self.layer.groups if self.is_convolution else 1
        *_, inputs, outputs = kernel.shape
        kernel = kernel.reshape(-1, inputs, groups, outputs // groups)
        return kernel.transpose(2, 0, 1, 3).reshape(
            groups, -1, outputs // groups
        )
