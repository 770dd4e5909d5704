"""Operations of TensorFlow in models of Keras 2, as operations of Keras 3.

Keras 2 put every function of TensorFlow that a model called into the graph, as
a `TFOpLambda`, a `SlicingOpLambda`, or before TensorFlow 2.4 a
`TensorFlowOpLayer`.
"""

import numpy as np
from keras import ops

from keras_norm.errors import ConversionError
from keras_norm.saving.keras2 import math_functions
from keras_norm.saving.keras2 import raw_operations
from keras_norm.saving.keras2 import shape_functions
from keras_norm.saving.keras2.math_functions import UnsupportedArgument

# Arguments that do not change the result.
IGNORED = ("name", "validate_indices")
FUNCTIONS = math_functions.FUNCTIONS | shape_functions.FUNCTIONS


def call(saved, inputs, kwargs):
    """Calls an operation of Keras 2 on symbolic tensors.

    Args:
        saved: Saved form of the layer, from the file.
        inputs: Its first argument: a tensor, a constant, or a list of both.
        kwargs: Dict with the other arguments.

    Returns:
        A symbolic tensor or a list of tensors.

    Raises:
        ConversionError: for an operation that is not supported.
    """
    config = saved["config"]
    try:
        if saved["class_name"] == "TensorFlowOpLayer":
            function, inputs, kwargs = raw_operations.read(config, inputs)
        else:
            function = config.get("function")
        if not isinstance(function, str):
            raise UnsupportedArgument("its function is not a name")
        return _call_function(function, inputs, kwargs)
    except (UnsupportedArgument, raw_operations.UnknownOperation) as error:
        raise _refusal(saved, error) from error
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise _refusal(saved, f"{type(error).__name__}: {error}") from error


def _refusal(saved, problem):
    function = saved["config"].get("function", saved["config"].get("name"))
    return ConversionError(
        f"the file contains {saved.get('name')!r}, the operation {function!r} "
        "of TensorFlow, which is not a layer and which Keras 3 cannot load: "
        "replace it by a layer in the code that builds the model "
        f"({problem})"
    )


def _call_function(function, inputs, kwargs):
    name = function.rpartition(".")[-1]
    kwargs = {k: v for k, v in kwargs.items() if k not in IGNORED}
    kwargs = {k: _read_constant(v) for k, v in kwargs.items()}
    inputs = _read_constant(inputs)
    if name in FUNCTIONS:
        return FUNCTIONS[name](inputs, **kwargs)
    if name in math_functions.REDUCTIONS:
        return math_functions.reduce(name, inputs, **kwargs)
    if name in math_functions.BINARY:
        return math_functions.binary(name, inputs, **kwargs)
    if name in math_functions.UNARY and not kwargs:
        return getattr(ops, name)(inputs)
    raise UnsupportedArgument(f"arguments {sorted(kwargs)}")


def _read_constant(value):
    """Returns the array of a constant that a `.keras` file saved as one."""
    if isinstance(value, dict) and value.get("class_name") in (
        "__tensor__",
        "__numpy__",
    ):
        config = value["config"]
        return np.array(config["value"], dtype=config["dtype"])
    if isinstance(value, dict) and value.get("class_name") == "__tuple__":
        return tuple(value["items"])
    return value
