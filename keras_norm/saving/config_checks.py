"""Checks that a config names only objects of Keras and registered objects.

Keras 3.8 imports any module that a config names and calls any function in it.
Later versions refuse that, but still open files and unpickle objects for some
layers. Therefore every object in a config is checked against a list before
Keras reads the config.
"""

import re

import keras

from keras_norm.errors import ConversionError
from keras_norm.saving import keras_internals
from keras_norm.saving.zip_checks import TRUST

MAX_DEPTH = 300
MAX_OBJECTS = 100_000
MAX_LAYERS = 5_000
# Keras rebuilds a Sequential model for every layer that it adds.
MAX_SEQUENCE = 500
MAX_TOKENS = 10**6
# Values that Keras writes as objects.
VALUES = (
    "__keras_tensor__",
    "__bytes__",
    "__slice__",
    "__ellipsis__",
    "__tuple__",
    "TensorShape",
)
# Objects of TensorFlow that Keras 3 does not use.
REFUSED = ("__typespec__", "TypeSpec", "CompositeTensor")
ARRAYS = ("__tensor__", "__numpy__")
# NumPy would also accept the size of a string or of a record as a dtype.
DTYPE = re.compile(r"(bool|string|(u?int|b?float|complex)\d+(_\w{1,12})?)\Z")
# Layers that run other code: a SavedModel, a pickle, a Python function.
FOREIGN = (
    keras.layers.TFSMLayer,
    keras.layers.TorchModuleWrapper,
    keras.layers.JaxLayer,
    keras.layers.FlaxLayer,
)


def check_config(config, name, modules=()):
    """Raises an error for a config with objects that are not allowed.

    Args:
        config: The config of a model, parsed from JSON, as Keras will read it.
        name: Name of the file in errors.
        modules: Names of modules that the user imported; their classes are
            allowed.

    Raises:
        ConversionError: for a class or function that is neither a part of Keras
            nor registered, or that models are not made of.
        ValueError: for Python code; its message contains "safe_mode".
    """
    num_objects = num_layers = 0
    for value in _walk(config, name):
        if not isinstance(value, dict) or "class_name" not in value:
            continue
        cls = _check_object(value, name, modules)
        _check_calls(value, name)
        _check_sequence(value, name)
        num_objects += 1
        num_layers += keras_internals.is_model_class(cls) and issubclass(
            cls, keras.Operation
        )
        if num_objects > MAX_OBJECTS or num_layers > MAX_LAYERS:
            raise ConversionError(
                f"{name} is refused: its config has more than {MAX_LAYERS:,} "
                f"layers or {MAX_OBJECTS:,} objects; {TRUST}"
            )


def check_depth(config, name):
    """Raises an error for a config that is nested too deep for recursion."""
    for _ in _walk(config, name):
        pass


def _walk(config, name):
    """Yields every value in a config, outer values first."""
    waiting = [(config, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ConversionError(
                f"{name} is damaged: its config is nested in more than "
                f"{MAX_DEPTH} levels"
            )
        yield value
        if isinstance(value, dict):
            value = value.values()
        if not isinstance(value, str | int | float | None):
            waiting += ((inner, depth + 1) for inner in value)


def _check_object(saved, name, modules):
    """Raises an error unless the object is allowed; returns its class.

    Returns None for a function, a value, and an object that Keras does not
    find.
    """
    kind, module, registered = _names(saved, name)
    config = saved.get("config")
    if kind == "__lambda__" or _is_lambda(config):
        raise ValueError("safe_mode")
    if kind in VALUES:
        return None
    if kind in ARRAYS:
        _check_array(config, name)
        return None
    if kind == "function":
        if not keras_internals.is_model_function(config, module):
            raise _unknown(config, module, name)
        return None
    if kind not in REFUSED and "config" not in saved:
        # Not an object, but a dict in the config of some layer.
        return None
    found = keras_internals.find_registered(saved)
    if found is not None:
        return found
    found = keras_internals.find_class(kind, module, modules)
    if found is None and module is None and kind not in REFUSED:
        # Keras does not find it either, and its own error is clearer.
        return None
    if not keras_internals.is_model_class(found):
        raise _unknown(kind, module, name, registered)
    _check_reach(found, config, name)
    return found


def _names(saved, name):
    names = {
        "class_name": saved["class_name"],
        "module": saved.get("module"),
        "registered_name": saved.get("registered_name"),
    }
    for key, value in names.items():
        is_absent = value is None and key != "class_name"
        if not isinstance(value, str) and not is_absent:
            raise ConversionError(
                f"{name} is damaged: its config has an object whose {key} is "
                f"not a string. Received: {key}={str(value)[:80]}"
            )
    if "registered_name" not in saved:
        names["registered_name"] = names["class_name"]
    return names.values()


def _is_lambda(config):
    """Returns True if a config contains Python code, as Keras 2 saved it."""
    return isinstance(config, dict) and (
        config.get("function_type") == "lambda"
        or isinstance(config.get("function"), list)
    )


def _check_array(config, name):
    dtype = config.get("dtype") if isinstance(config, dict) else None
    if not isinstance(dtype, str) or not DTYPE.match(dtype):
        raise ConversionError(
            f"{name} is damaged: its config has an array of an unknown dtype. "
            f"Received: dtype={str(dtype)[:80]}"
        )


def _check_reach(cls, config, name):
    """Raises an error for a class that runs other code or reads other files."""
    if issubclass(cls, FOREIGN):
        raise ConversionError(
            f"{name} contains a {cls.__name__}, which runs code other than "
            f"Keras layers: {TRUST}"
        )
    if not isinstance(config, dict):
        return
    tokens = config.get("num_oov_indices")
    if isinstance(tokens, int) and tokens > MAX_TOKENS:
        raise ConversionError(
            f"{name} is refused: a {cls.__name__} has more than "
            f"{MAX_TOKENS:,} out-of-vocabulary tokens. "
            f"Received: num_oov_indices={tokens}"
        )
    vocabulary = config.get("vocabulary")
    if isinstance(vocabulary, str):
        raise ConversionError(
            f"{name} reads a vocabulary from another file, {vocabulary!r}: "
            f"{TRUST}"
        )


def _check_calls(saved, name):
    """Raises an error for a call that does not take a tensor of the graph.

    Keras would compute a call on constants at once, whatever its size.
    """
    nodes = saved.get("inbound_nodes")
    if not isinstance(nodes, list):
        return
    for node in nodes:
        if isinstance(node, dict) and not _has_tensor(node):
            raise ConversionError(
                f"{name} is damaged: {str(saved.get('name'))[:80]!r} is called "
                "on no tensor of the model"
            )


def _check_sequence(saved, name):
    config = saved.get("config")
    layers = config.get("layers") if isinstance(config, dict) else config
    is_long = isinstance(layers, list) and len(layers) > MAX_SEQUENCE
    if is_long and saved["class_name"] == "Sequential":
        raise ConversionError(
            f"{name} is refused: a Sequential model in it has {len(layers):,} "
            f"layers, more than {MAX_SEQUENCE:,}; {TRUST}"
        )


def _has_tensor(node):
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


def _unknown(kind, module, name, registered=None):
    if ">" in str(registered):
        kind = registered
    elif module not in (None, "builtins") and ">" not in str(kind):
        kind = f"{module}.{kind}"
    return ConversionError(
        f"{name} contains {str(kind)[:100]!r}, which is unknown, neither a "
        "part of Keras nor registered: first import the module that registers "
        "it (--import MODULE)"
    )
