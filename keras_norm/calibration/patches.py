"""Patches of an image: the values that each output of a convolution reads."""

import math

import numpy as np


def extract_patches(x, kernel_size, strides, dilation, padding):
    """Returns the patches of a batch with channels last.

    Args:
        x: Array `(N, positions..., C)`.
        kernel_size, strides, dilation: Tuples with an integer per position
            axis.
        padding: `"valid"`, `"same"`, or `"causal"` for one position axis.

    Returns:
        Array `(N, output positions..., kernel positions..., C)`.
    """
    num_axes = len(kernel_size)
    spans = [
        (k - 1) * d + 1 for k, d in zip(kernel_size, dilation, strict=True)
    ]
    widths = [
        _padding(size, span, stride, padding)
        for size, span, stride in zip(
            x.shape[1:-1], spans, strides, strict=True
        )
    ]
    x = np.pad(x, [(0, 0), *widths, (0, 0)])
    axes = tuple(range(1, num_axes + 1))
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    # (N, positions..., C, span...): take every stride and every dilation.
    windows = windows[
        (
            slice(None),
            *(slice(None, None, stride) for stride in strides),
            slice(None),
            *(slice(None, None, d) for d in dilation),
        )
    ]
    return np.moveaxis(windows, num_axes + 1, -1)


def _padding(size, span, stride, padding):
    if padding == "valid":
        return 0, 0
    if padding == "causal":
        return span - 1, 0
    total = (math.ceil(size / stride) - 1) * stride + span - size
    total = max(total, 0)
    return total // 2, total - total // 2
