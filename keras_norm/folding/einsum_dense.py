"""Weights of EinsumDense after an affine function is folded into them."""

import dataclasses

import numpy as np

from keras_norm.folding.affine import NotFoldableError
from keras_norm.folding.affine import compact

# Stands for the axes of an ellipsis.
_ELLIPSIS = "0"


def fold_outputs(linear, affine, call):
    """Returns the layer that outputs `affine(y)` in place of `y`."""
    inputs, kernel, outputs = _labels(linear, call)
    rank = len(call.output_shape)
    factor = _on_kernel(affine.factor, outputs[1:], kernel, linear, call)
    folded = dataclasses.replace(
        linear,
        values={**linear.values, "kernel": linear.values["kernel"] * factor},
    )
    bias = _output_bias(linear, outputs, rank)
    return _with_bias(
        folded, bias * affine.factor + affine.offset, outputs, call
    )


def fold_inputs(linear, affine, call):
    """Returns the layer that takes `x` in place of `affine(x)`."""
    inputs, kernel, outputs = _labels(linear, call)
    (shape,) = call.input_shapes[:1]
    factor = _on_kernel(affine.factor, inputs[1:], kernel, linear, call)
    folded = dataclasses.replace(
        linear,
        values={**linear.values, "kernel": linear.values["kernel"] * factor},
    )
    if affine.adds_nothing:
        return folded
    summed = set(inputs[1:]) - set(outputs)
    if not summed <= set(kernel):
        raise NotFoldableError(
            f"its offset is summed over positions by {call.path!r}"
        )
    sizes = [
        size if label in kernel else given
        for label, size, given in zip(
            inputs[1:], shape, affine.offset.shape, strict=True
        )
    ]
    offset = np.broadcast_to(affine.offset, sizes)
    # NumPy takes integers as labels.
    numbers = {label: i for i, label in enumerate({*inputs, *kernel, *outputs})}
    added = np.einsum(
        offset,
        [numbers[label] for label in inputs[1:]],
        linear.values["kernel"],
        [numbers[label] for label in kernel],
        [numbers[label] for label in outputs[1:]],
    )
    bias = _output_bias(linear, outputs, len(call.output_shape))
    return _with_bias(folded, bias + added, outputs, call)


def _labels(linear, call):
    """Returns the labels of the axes of inputs, kernel and outputs.

    The axes of an ellipsis have labels of their own, `(0, i)`.
    """
    equation = linear.layer.equation.replace("...", _ELLIPSIS)
    left, outputs = equation.split("->")
    inputs, kernel = left.split(",")
    elided = len(call.input_shapes[0]) + 1 - len(inputs.replace(_ELLIPSIS, ""))
    filled = [(_ELLIPSIS, i) for i in range(elided)]

    def expand(labels):
        for label in labels:
            yield from filled if label == _ELLIPSIS else [label]

    return list(expand(inputs)), list(kernel), list(expand(outputs))


def _on_kernel(factor, labels, kernel, linear, call):
    """Returns a factor of the kernel for a factor of inputs or outputs."""
    shape = [1] * len(kernel)
    order = []
    for axis, size in enumerate(factor.shape):
        if size == 1:
            continue
        if labels[axis] not in kernel:
            raise NotFoldableError(
                f"the kernel of {call.path!r} has no axis for its channels"
            )
        position = kernel.index(labels[axis])
        shape[position] = size
        order.append((position, axis))
    kept = [axis for _, axis in sorted(order)]
    moved = np.transpose(
        factor, [*kept, *(i for i in range(factor.ndim) if i not in kept)]
    )
    return moved.reshape(shape)


def _output_bias(linear, outputs, rank):
    """Returns the bias with one axis for each axis of the output."""
    bias = linear.values.get("bias", np.zeros(()))
    return bias.reshape((1,) * (rank - bias.ndim) + bias.shape)


def _with_bias(linear, bias, outputs, call):
    """Returns the layer with a bias along the axes on which it differs."""
    bias = compact(bias)
    if linear.bias_axes is None and not bias.any():
        return linear
    labels = outputs[1:]
    axes = [i for i, size in enumerate(bias.shape) if size > 1]
    axes += [
        i
        for i, label in enumerate(labels)
        if label in list(linear.bias_axes or "")
    ]
    if not axes:
        # Any axis can hold a bias that is the same everywhere.
        axes = [i for i, label in enumerate(labels) if isinstance(label, str)][
            -1:
        ]
    axes = sorted(set(axes))
    if not axes or not all(
        isinstance(labels[i], str) and call.output_shape[i] for i in axes
    ):
        raise NotFoldableError(f"{call.path!r} has no bias for its positions")
    shape = [
        call.output_shape[i] if i in axes else 1
        for i in range(axes[0], len(labels))
    ]
    bias = np.broadcast_to(bias.reshape(bias.shape[axes[0] :]), shape)
    return dataclasses.replace(
        linear,
        values={**linear.values, "bias": np.array(bias)},
        bias_axes="".join(labels[i] for i in axes),
    )
