"""Linear layers, and their weights after an affine function of their inputs
or outputs is folded into them.
"""

import dataclasses

import keras
import numpy as np

from keras_norm import variables
from keras_norm.folding import einsum_dense
from keras_norm.folding.affine import NotFoldableError
from keras_norm.folding.time_distributed import InnerCall
from keras_norm.folding.time_distributed import inner_layer

_BY_RANK = {
    "conv": ("Conv1D", "Conv2D", "Conv3D"),
    "depthwise": ("DepthwiseConv1D", "DepthwiseConv2D"),
    "separable": ("SeparableConv1D", "SeparableConv2D"),
    "transpose": ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    "dense": ("Dense",),
    "einsum": ("EinsumDense",),
    "embedding": ("Embedding",),
}
_KINDS = {
    getattr(keras.layers, name): kind
    for kind, names in _BY_RANK.items()
    for name in names
}
# Kinds that pad their inputs with zeros.
_PADDING = ("conv", "depthwise", "separable")


@dataclasses.dataclass(frozen=True)
class LinearLayer:
    """A linear layer with folded weights.

    Attributes:
        layer: The layer of the original model.
        values: Dict from names of weights to float64 arrays.
        padding: One value per input channel that pads the inputs, or None to
            pad as the layer does.
        bias_axes: Axes of the bias of an EinsumDense, or None.
        wrapper: The TimeDistributed that contains the layer, or None.
    """

    layer: object
    values: dict
    padding: np.ndarray | None = None
    bias_axes: str | None = None
    wrapper: object = None

    @property
    def kind(self):
        """Kind of the layer: `"conv"`, `"dense"` and so on."""
        return _KINDS[type(self.layer)]

    def replace(self, bias=None, padding=None, **values):
        """Returns a copy with other weights."""
        if bias is not None and ("bias" in self.values or bias.any()):
            values["bias"] = bias
        return dataclasses.replace(
            self, values={**self.values, **values}, padding=padding
        )


def read(layer):
    """Returns the `LinearLayer` of a layer.

    Raises:
        NotFoldableError: if it is not linear in its inputs, up to its
            activation, or its weights cannot be changed.
    """
    outer, layer = layer, inner_layer(layer)
    kind = f"{outer.name!r} ({type(layer).__name__})"
    if type(layer) not in _KINDS:
        bases = [base for base in _KINDS if isinstance(layer, base)]
        if bases:
            raise NotFoldableError(
                f"{kind} is a subclass of {bases[0].__name__}, which may "
                "compute something else"
            )
        raise NotFoldableError(f"{kind} is not a convolution or dense layer")
    if getattr(layer, "lora_enabled", False):
        raise NotFoldableError(f"{kind} has LoRA weights: merge them first")
    if getattr(layer, "quantization_mode", None) is not None:
        raise NotFoldableError(f"{kind} is quantized")
    if hasattr(layer, "parametrizations"):
        raise NotFoldableError(f"{kind} computes its kernel from other weights")
    return LinearLayer(
        layer,
        {
            v.name: variables.read_copy(v).astype("float64")
            for v in layer.variables
        },
        bias_axes=getattr(layer, "bias_axes", None),
        wrapper=None if outer is layer else outer,
    )


def is_linear_layer(operation):
    """Returns True for the layers of Keras that weights can be folded into."""
    return isinstance(inner_layer(operation), tuple(_KINDS))


def fold_outputs(linear, affine, call):
    """Returns the layer that outputs `affine(y)` in place of `y`.

    Args:
        linear: `LinearLayer`.
        affine: `Affine` of the layer's output.
        call: The `Call` of the layer.
    """
    if linear.wrapper is not None:
        affine, call = affine.inside(), InnerCall(call)
    layer, values = linear.layer, linear.values
    if getattr(layer, "activation", None) not in (
        None,
        keras.activations.linear,
    ):
        name = getattr(layer.activation, "__name__", layer.activation)
        raise NotFoldableError(
            f"follows the activation {name} of {call.path!r}"
        )
    if linear.kind == "einsum":
        return einsum_dense.fold_outputs(linear, affine, call)
    axis = _channel_axis(layer, len(call.output_shape))
    factor, offset = affine.along(axis, call.output_shape[axis])
    bias = values.get("bias", 0.0) * factor + offset
    if linear.kind == "embedding":
        table = values["embeddings"] * factor + offset
        return linear.replace(embeddings=table)
    name = "pointwise_kernel" if linear.kind == "separable" else "kernel"
    kernel = values[name]
    if linear.kind == "transpose":
        factor = factor[:, None]
    elif linear.kind == "depthwise":
        factor = factor.reshape(kernel.shape[-2:])
    return linear.replace(
        bias=bias, padding=linear.padding, **{name: kernel * factor}
    )


def fold_inputs(linear, affine, call):
    """Returns the layer that takes `x` in place of `affine(x)`.

    Args:
        linear: `LinearLayer`.
        affine: `Affine` of the layer's input.
        call: The `Call` of the layer.
    """
    if linear.wrapper is not None:
        affine, call = affine.inside(), InnerCall(call)
    if linear.kind == "embedding":
        raise NotFoldableError(f"feeds {call.describe()}")
    if linear.kind == "einsum":
        return einsum_dense.fold_inputs(linear, affine, call)
    (shape,) = call.input_shapes[:1]
    axis = _channel_axis(linear.layer, len(shape))
    factor, offset = affine.along(axis, shape[axis])
    padding = None
    if linear.kind in _PADDING:
        padding = _new_padding(linear, factor, offset, call)
    return _INPUTS[linear.kind](linear, factor, offset, padding)


def _dense_inputs(linear, factor, offset, padding):
    kernel = linear.values["kernel"]
    return linear.replace(
        kernel=kernel * factor[:, None],
        bias=linear.values.get("bias", 0.0) + offset @ kernel,
    )


def _conv_inputs(linear, factor, offset, padding):
    kernel = linear.values["kernel"]
    per_group, filters = kernel.shape[-2:]
    group = np.arange(filters) // (filters // linear.layer.groups)
    # The input channels of every filter, `(per_group, filters)`.
    channels = np.arange(per_group)[:, None] + per_group * group
    sums = kernel.reshape(-1, per_group, filters).sum(0)
    return linear.replace(
        kernel=kernel * factor[channels],
        bias=linear.values.get("bias", 0.0) + (sums * offset[channels]).sum(0),
        padding=padding,
    )


def _depthwise_inputs(linear, factor, offset, padding):
    kernel = linear.values["kernel"]
    sums = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
    return linear.replace(
        kernel=kernel * factor[:, None],
        bias=linear.values.get("bias", 0.0)
        + (sums * offset[:, None]).reshape(-1),
        padding=padding,
    )


def _separable_inputs(linear, factor, offset, padding):
    kernel = linear.values["depthwise_kernel"]
    pointwise = linear.values["pointwise_kernel"]
    sums = kernel.reshape(-1, *kernel.shape[-2:]).sum(0)
    between = (sums * offset[:, None]).reshape(-1)
    return linear.replace(
        depthwise_kernel=kernel * factor[:, None],
        bias=linear.values.get("bias", 0.0)
        + between @ pointwise.reshape(pointwise.shape[-2:]),
        padding=padding,
    )


def _transpose_inputs(linear, factor, offset, padding):
    if offset.any():
        raise NotFoldableError(
            f"its offset does not pass through {linear.layer.name!r}, a "
            f"{type(linear.layer).__name__}: the number of inputs of an output "
            "depends on its position"
        )
    return linear.replace(
        bias=linear.values.get("bias", np.zeros(())),
        kernel=linear.values["kernel"] * factor,
    )


_INPUTS = {
    "dense": _dense_inputs,
    "conv": _conv_inputs,
    "depthwise": _depthwise_inputs,
    "separable": _separable_inputs,
    "transpose": _transpose_inputs,
}


def _channel_axis(layer, rank):
    first = getattr(layer, "data_format", None) == "channels_first"
    return 0 if first else rank - 1


def _new_padding(linear, factor, offset, call):
    """Returns the values that pad the inputs before the affine function.

    The padded values were `p`, and are now `affine^-1(p)`.
    """
    if not any(map(any, pad_widths(linear.layer, call.input_shapes[0], False))):
        return None
    before = np.zeros_like(offset) if linear.padding is None else linear.padding
    moved = before - offset
    if not moved.any():
        return None
    if not factor[moved != 0].all():
        raise NotFoldableError(
            f"{call.path!r} pads with zeros, and a channel with a factor of 0 "
            "has no value that becomes 0"
        )
    pad_widths(linear.layer, call.input_shapes[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(moved == 0, 0.0, moved / factor)


def pad_widths(layer, input_shape, require_size=True):
    """Returns `(before, after)` for each spatial axis that a layer pads.

    Args:
        layer: A convolution.
        input_shape: Shape of its input, without the batch.
        require_size: If False, unknown sizes return `(1, 1)`.

    Raises:
        NotFoldableError: if the widths depend on an unknown size.
    """
    spatial = len(layer.kernel_size)
    first = layer.data_format == "channels_first"
    sizes = input_shape[1:] if first else input_shape[:-1]
    widths = []
    for i in range(spatial):
        extent = (layer.kernel_size[i] - 1) * layer.dilation_rate[i] + 1
        if layer.padding == "valid":
            total = 0
        elif layer.padding == "causal" or layer.strides[i] == 1:
            total = extent - 1
        elif sizes[i] is not None:
            outputs = -(-sizes[i] // layer.strides[i])
            total = max((outputs - 1) * layer.strides[i] + extent - sizes[i], 0)
        elif not require_size:
            total = 2
        else:
            raise NotFoldableError(
                f"{layer.name!r} pads by a width that depends on the unknown "
                "size of its input"
            )
        before = total if layer.padding == "causal" else total // 2
        widths.append((before, total - before))
    return widths


def check_range(linear):
    """Raises a `NotFoldableError` if the layer's dtypes cannot hold weights."""
    dtypes = {linear.layer.variable_dtype, linear.layer.compute_dtype}
    for dtype in sorted(dtypes):
        arrays = [*linear.values.values()]
        arrays += [] if linear.padding is None else [linear.padding]
        for array in arrays:
            if not np.isfinite(_cast(array, dtype)).all():
                raise NotFoldableError(
                    f"the folded weights of {linear.layer.name!r} do not fit "
                    f"into {dtype}"
                )
        if linear.padding is not None:
            _check_padding(linear, dtype)


def _check_padding(linear, dtype):
    """The kernel of a channel with large padding must keep its precision."""
    name = "depthwise_kernel" if linear.kind == "separable" else "kernel"
    kernel = linear.values[name]
    error = np.abs(_cast(kernel, dtype) - kernel)
    axes = tuple(i for i in range(kernel.ndim) if i != kernel.ndim - 2)
    largest = np.abs(kernel).max(axes)
    epsilon = {"float16": 2**-10, "bfloat16": 2**-7}.get(dtype, 2**-23)
    if (error.max(axes) > 4 * epsilon * largest).any():
        raise NotFoldableError(
            f"the folded weights of {linear.layer.name!r} are too small for "
            f"{dtype}"
        )


def _cast(array, dtype):
    with np.errstate(over="ignore"):
        return array.astype(dtype).astype("float64")
