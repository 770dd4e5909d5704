"""Reads a `TensorFlowOpLayer`, one node of a graph of TensorFlow 2.0 to 2.3."""

import numpy as np


class UnknownOperation(Exception):
    """A node whose operation or attribute is not supported."""


# The function of TensorFlow for a node, and the names of its arguments.
NODES = {
    "Abs": ("abs", "x"),
    "Add": ("add", "x y"),
    "AddV2": ("add", "x y"),
    "BiasAdd": ("bias_add", "x bias"),
    "Cast": ("cast", "x"),
    "ConcatV2": ("concat", "values axis"),
    "Elu": ("elu", "x"),
    "Exp": ("exp", "x"),
    "ExpandDims": ("expand_dims", "x axis"),
    "FloorDiv": ("floor_div", "x y"),
    "FloorMod": ("floormod", "x y"),
    "GatherV2": ("gather", "x indices axis"),
    "Greater": ("greater", "x y"),
    "Identity": ("identity", "x"),
    "LeakyRelu": ("leaky_relu", "x"),
    "Less": ("less", "x y"),
    "Log": ("log", "x"),
    "MatMul": ("matmul", "x b"),
    "Max": ("reduce_max", "x axis"),
    "Maximum": ("maximum", "x y"),
    "Mean": ("reduce_mean", "x axis"),
    "Min": ("reduce_min", "x axis"),
    "Minimum": ("minimum", "x y"),
    "Mul": ("multiply", "x y"),
    "Neg": ("negative", "x"),
    "Pack": ("stack", "values"),
    "Pad": ("pad", "x paddings"),
    "PadV2": ("pad", "x paddings constant_values"),
    "Pow": ("pow", "x y"),
    "Prod": ("reduce_prod", "x axis"),
    "RealDiv": ("truediv", "x y"),
    "Relu": ("relu", "x"),
    "Relu6": ("relu6", "x"),
    "Reshape": ("reshape", "x shape"),
    "ResizeBilinear": ("resize", "x size"),
    "ResizeNearestNeighbor": ("resize", "x size"),
    "Round": ("round", "x"),
    "Rsqrt": ("rsqrt", "x"),
    "Selu": ("selu", "x"),
    "Sigmoid": ("sigmoid", "x"),
    "Softmax": ("softmax", "x"),
    "Softplus": ("softplus", "x"),
    "Sqrt": ("sqrt", "x"),
    "Square": ("square", "x"),
    "SquaredDifference": ("squared_difference", "x y"),
    "Squeeze": ("squeeze", "x"),
    "StridedSlice": ("getitem", "x begin end strides"),
    "Sub": ("subtract", "x y"),
    "Sum": ("reduce_sum", "x axis"),
    "Tanh": ("tanh", "x"),
    "Tile": ("tile", "x multiples"),
    "Transpose": ("transpose", "x perm"),
}
# Arguments of the functions that are attributes of the node.
ATTRIBUTES = {
    "alpha": "alpha",
    "axis": "axis",
    "data_format": "data_format",
    "keep_dims": "keepdims",
    "squeeze_dims": "axis",
    "transpose_a": "transpose_a",
    "transpose_b": "transpose_b",
    "DstT": "dtype",
}
DTYPES = {"DT_FLOAT": "float32", "DT_HALF": "float16", "DT_DOUBLE": "float64"}
MASKS = (
    "begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask",
    "shrink_axis_mask",
)  # fmt: skip


def read(config, inputs):
    """Returns the function, the first argument and the others of a node.

    Args:
        config: Config of the layer.
        inputs: Tensor or list of tensors.
    """
    node = config.get("node_def")
    if not isinstance(node, dict):
        raise UnknownOperation("a node that is not JSON")
    kind = node["op"]
    if kind not in NODES:
        raise UnknownOperation(f"a node {kind!r}")
    function, names = NODES[kind]
    names = names.split()
    attributes = {
        key: _attribute(value) for key, value in node.get("attr", {}).items()
    }
    values = list(inputs) if isinstance(inputs, list) else [inputs]
    constants = config.get("constants") or {}
    for index in sorted(constants, key=int):
        values.insert(int(index), _array(constants[index]))
    if names[0] == "values":
        count = len(values) - len(names) + 1
        values = [values[:count], *values[count:]]
    arguments = dict(zip(names, values, strict=True))
    first = arguments.pop(names[0])
    if kind == "StridedSlice":
        return function, first, {"slice_spec": _slices(arguments, attributes)}
    if kind.startswith("Resize"):
        arguments["method"] = _resize_method(kind, attributes)
    for key, name in ATTRIBUTES.items():
        if key in attributes:
            arguments[name] = attributes[key]
    return function, first, arguments


def _array(value):
    if isinstance(value, dict):
        value = value["config"]["value"]
    return value.tolist() if isinstance(value, np.ndarray) else value


def _attribute(value):
    """Returns the value of an attribute, which JSON wraps by its type."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    if kind == "type":
        inner = DTYPES.get(inner, inner.removeprefix("DT_").lower())
    elif kind == "i":
        inner = int(inner)
    elif kind == "list":
        inner = [int(item) for item in inner.get("i", [])]
    elif kind == "s":
        inner = {"TkhXQw==": "NHWC", "TkNIVw==": "NCHW"}.get(inner, inner)
    return inner


def _resize_method(kind, attributes):
    if not attributes.get("half_pixel_centers"):
        raise UnknownOperation("a resize of TensorFlow 1")
    return "bilinear" if kind == "ResizeBilinear" else "nearest"


def _slices(arguments, attributes):
    begin, end, strides = (
        arguments[key] for key in ("begin", "end", "strides")
    )
    masks = {key: attributes.get(key) or 0 for key in MASKS}
    items = []
    for i, (start, stop, step) in enumerate(
        zip(begin, end, strides, strict=True)
    ):
        bits = {key for key, mask in masks.items() if mask >> i & 1}
        if "ellipsis_mask" in bits:
            items.append({"class_name": "__ellipsis__"})
        elif "new_axis_mask" in bits:
            items.append(None)
        elif "shrink_axis_mask" in bits:
            items.append(start)
        else:
            items.append(
                {
                    "start": None if "begin_mask" in bits else start,
                    "stop": None if "end_mask" in bits else stop,
                    "step": step,
                }
            )
    return items
