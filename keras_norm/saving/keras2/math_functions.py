"""Functions of tensors as TensorFlow computes them, with `keras.ops`.

The arguments have the names that they have in TensorFlow, because Keras 2 saved
these.
"""

import keras
import numpy as np
from keras import ops


class UnsupportedArgument(Exception):
    """An argument with which Keras 3 would not compute the same."""


# Functions of `keras.ops` of the same name, of one tensor.
UNARY = (
    "abs ceil cos cosh erf exp expm1 floor isfinite isinf isnan log log1p "
    "logical_not negative reciprocal round rsqrt sigmoid sign sin sinh sqrt "
    "square tan tanh elu relu relu6 selu silu softplus softsign zeros_like "
    "ones_like stop_gradient"
).split()
# Functions of two tensors.
BINARY = {
    "add": ops.add,
    "divide": ops.true_divide,
    "equal": ops.equal,
    "floor_div": ops.floor_divide,
    "floordiv": ops.floor_divide,
    "floormod": ops.mod,
    "greater": ops.greater,
    "greater_equal": ops.greater_equal,
    "less": ops.less,
    "less_equal": ops.less_equal,
    "logical_and": ops.logical_and,
    "logical_or": ops.logical_or,
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "mod": ops.mod,
    "multiply": ops.multiply,
    "not_equal": ops.not_equal,
    "pow": ops.power,
    "subtract": ops.subtract,
    "truediv": ops.true_divide,
}
REDUCTIONS = {
    "reduce_all": ops.all,
    "reduce_any": ops.any,
    "reduce_logsumexp": ops.logsumexp,
    "reduce_max": ops.max,
    "reduce_mean": ops.mean,
    "reduce_min": ops.min,
    "reduce_prod": ops.prod,
    "reduce_std": ops.std,
    "reduce_sum": ops.sum,
    "reduce_variance": ops.var,
}


def constant(value, dtype):
    """Returns a constant operand in the dtype of the other operand."""
    if isinstance(value, list | tuple | np.ndarray):
        dtype = "float32" if dtype == "bfloat16" else dtype
        return np.asarray(value, dtype=dtype)
    return value


def binary(name, x, y):
    tensors = [value for value in (x, y) if is_tensor(value)]
    dtype = tensors[0].dtype
    x, y = (v if is_tensor(v) else constant(v, dtype) for v in (x, y))
    if name in ("divide", "truediv") and "int" in dtype:
        # TensorFlow divides in float64.
        raise UnsupportedArgument("division of integers")
    return cast_like(BINARY[name](x, y), dtype)


def cast_like(result, dtype):
    if result.dtype not in ("bool", dtype):
        return ops.cast(result, dtype)
    return result


def is_tensor(value):
    return isinstance(value, keras.KerasTensor)


def reduce(name, x, axis=None, keepdims=False, keep_dims=None):
    if name in ("reduce_mean", "reduce_std", "reduce_variance"):
        if "float" not in x.dtype:
            raise UnsupportedArgument(f"mean of {x.dtype}")
    axis = tuple(axis) if isinstance(axis, list) else axis
    result = REDUCTIONS[name](
        x, axis=axis, keepdims=bool(keepdims or keep_dims)
    )
    return result if result.dtype == x.dtype else ops.cast(result, x.dtype)


def _add_n(inputs):
    total = inputs[0]
    for x in inputs[1:]:
        total = ops.add(total, x)
    return total


def _argmax(x, axis=None, output_type="int64", function=ops.argmax):
    index = function(x, axis=0 if axis is None else axis)
    return ops.cast(index, dtype_name(output_type))


def _argmin(x, axis=None, output_type="int64"):
    return _argmax(x, axis, output_type, ops.argmin)


def dtype_name(value):
    return value.rpartition(".")[-1] if isinstance(value, str) else value


def _bias_add(x, bias, data_format="NHWC"):
    if not is_tensor(bias):
        bias = constant(bias, x.dtype)
    if str(data_format).startswith("NC") and len(x.shape) > 2:
        bias = ops.reshape(bias, (-1,) + (1,) * (len(x.shape) - 2))
    return cast_like(ops.add(x, bias), x.dtype)


def _clip(x, clip_value_min, clip_value_max):
    x = binary("maximum", x, clip_value_min)
    return binary("minimum", x, clip_value_max)


def _crelu(x, axis=-1):
    return ops.concatenate([ops.relu(x), ops.relu(ops.negative(x))], axis=axis)


def _gelu(x, approximate=False):
    return ops.gelu(x, approximate=bool(approximate))


def _l2_normalize(x, axis=None, epsilon=1e-12, dim=None):
    axis = dim if axis is None else axis
    axis = tuple(axis) if isinstance(axis, list) else axis
    norm = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return ops.multiply(x, ops.rsqrt(ops.maximum(norm, epsilon)))


def _leaky_relu(x, alpha=0.2):
    return ops.leaky_relu(x, negative_slope=alpha)


def _matmul(a, b, **options):
    for key in ("transpose_a", "adjoint_a"):
        if options.pop(key, False):
            a = ops.swapaxes(a, -1, -2)
    for key in ("transpose_b", "adjoint_b"):
        if options.pop(key, False):
            b = ops.swapaxes(b, -1, -2)
    if any(options.values()):
        raise UnsupportedArgument(f"arguments {sorted(options)}")
    a, b = (x if is_tensor(x) else np.asarray(x, "float32") for x in (a, b))
    return ops.matmul(a, b)


def _silu(x, beta=1.0):
    return ops.silu(x) if beta == 1.0 else x * ops.sigmoid(beta * x)


def _softmax(x, axis=None, function=ops.softmax):
    return function(x, axis=-1 if axis is None else axis)


def _log_softmax(x, axis=None):
    return _softmax(x, axis, ops.log_softmax)


def _squared_difference(x, y):
    return ops.square(binary("subtract", x, y))


def _where(condition, x=None, y=None):
    if x is None or y is None:
        raise UnsupportedArgument("indices of an unknown number")
    dtype = next(v.dtype for v in (x, y) if is_tensor(v))
    x, y = (v if is_tensor(v) else constant(v, dtype) for v in (x, y))
    return cast_like(ops.where(condition, x, y), dtype)


FUNCTIONS = {
    "add_n": _add_n,
    "argmax": _argmax,
    "argmin": _argmin,
    "bias_add": _bias_add,
    "cast": lambda x, dtype: ops.cast(x, dtype_name(dtype)),
    "clip_by_value": _clip,
    "crelu": _crelu,
    "gelu": _gelu,
    "identity": lambda x: x,
    "l2_normalize": _l2_normalize,
    "leaky_relu": _leaky_relu,
    "log_softmax": _log_softmax,
    "matmul": _matmul,
    "relu": lambda x: ops.relu(x),
    "silu": _silu,
    "softmax": _softmax,
    "squared_difference": _squared_difference,
    "swish": _silu,
    "where": _where,
}
