"""Translates the configs of Keras 2 layers to Keras 3."""

import re

from keras_norm.errors import ConversionError
from keras_norm.saving.keras2 import layer_table

MODELS = ("Functional", "Model", "Sequential")
OPERATIONS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")
HARD_SIGMOID = {
    "module": "builtins",
    "class_name": "function",
    "config": "keras_norm>keras2_hard_sigmoid",
    "registered_name": "function",
}
# Functions of TensorFlow that Keras 2 saved under names of their own.
FUNCTIONS = {
    "hard_sigmoid": HARD_SIGMOID,
    "log_softmax_v2": "log_softmax",
    "softmax_v2": "softmax",
    "swish_v1": "silu",
}
PACKAGE = re.compile("(Custom|keras|tf_keras)>")


def class_name(saved):
    """Returns the name of an object's class in Keras 3."""
    name = PACKAGE.sub("", str(saved.get("class_name")))
    registered = saved.get("registered_name")
    if isinstance(registered, str) and registered in layer_table.CLASSES:
        name = registered
    return layer_table.CLASSES.get(name, name)


def is_layer(value):
    """Returns True for the saved form of a layer, not of an initializer."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("config"), dict)
        and "class_name" in value
        and "name" in value["config"]
    )


def is_model(saved):
    """Returns True for the saved form of a model whose layers are listed."""
    return (
        isinstance(saved, dict)
        and "class_name" in saved
        and class_name(saved) in MODELS
    )


def translate(saved, notes, modern):
    """Returns the saved form of an object as Keras 3 reads it.

    Args:
        saved: Dict with the class name and the config of a layer or model of
            Keras 2; it is not changed. Layers inside it are translated too.
        notes: List of strings, to which remarks for the user are added.
        modern: If True, the file names the modules of classes.

    Raises:
        ConversionError: for an argument that Keras 3 does not have, with a
            value that changes the function of the layer.
    """
    old, kind = str(saved["class_name"]), class_name(saved)
    config = {
        key: _translate_value(key, value, notes, modern)
        for key, value in saved["config"].items()
    }
    name = config.get("name", old)
    plain = PACKAGE.sub("", old)
    for before, after in layer_table.RENAMED.get(plain, {}).items():
        if before in config:
            config[after] = config.pop(before)
    for name_in_table in dict.fromkeys((plain, kind)):
        if name_in_table in SPECIAL:
            SPECIAL[name_in_table](config, notes)
    dropped = layer_table.DROPPED["*"] | layer_table.DROPPED.get(kind, {})
    for key, allowed in dropped.items():
        if key not in config:
            continue
        value = config.pop(key)
        if allowed is not layer_table.ANY and value not in allowed:
            raise refusal(name, old, f"{key}={value}")
    for key, value in layer_table.DEFAULTS.get(kind, {}).items():
        config.setdefault(key, value)
    new = {"class_name": kind, "config": config}
    if kind in layer_table.KERAS_LAYERS:
        return new | {"module": "keras.layers", "registered_name": None}
    if kind in layer_table.MODULES:
        module = layer_table.MODULES[kind]
        return new | {"module": module, "registered_name": kind}
    if modern and saved.get("module") is not None:
        new["module"] = saved["module"]
    new["registered_name"] = saved.get("registered_name") or kind
    return new


def refusal(name, kind, received):
    """Returns the error for an argument that Keras 3 does not support."""
    return ConversionError(
        f"the file contains {name!r}, a {kind} of Keras 2 with an argument "
        "that Keras 3 does not have or reads differently: build the model "
        f"without it. Received: {received[:120]}"
    )


def _translate_value(key, value, notes, modern):
    """Returns the value of an argument of a layer."""
    if key == "dtype":
        return _policy(value)
    if key.endswith("activation"):
        return _function(value, notes, modern)
    if isinstance(value, list) and any(map(is_layer, value)):
        return [translate(item, notes, modern) for item in value]
    if is_layer(value):
        if class_name(value) in MODELS or key == "function":
            return value
        return translate(value, notes, modern)
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        # An initializer, regularizer or constraint; "shared_object_id" only
        # tells which are one object.
        inner = dict(value["config"])
        if key.endswith("initializer"):
            # TensorFlow 1 saved it, and it has no effect in Keras 3.
            inner.pop("dtype", None)
        value = {**value, "config": inner}
        value.pop("shared_object_id", None)
        kind = str(value.get("class_name"))
        if key.endswith("initializer"):
            value["class_name"] = kind.removesuffix("V2")
    return value


def _policy(value):
    """Returns the name of a dtype policy or dtype."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        value = value["config"].get("name")
    return None if value == "_infer" else value


def _function(value, notes, modern):
    """Returns the function of an activation as Keras 3 finds it."""
    name = value
    if isinstance(value, dict):
        if is_layer(value):
            return translate(value, notes, modern)
        if value.get("class_name") != "function":
            return value
        name = value.get("config")
        if ">" in str(value.get("registered_name")):
            return value
    if not isinstance(name, str):
        return value
    return FUNCTIONS.get(name, name if isinstance(value, str) else value)


def _input_layer(config, notes):
    shape = config.pop("batch_input_shape", None)
    if shape:
        config["batch_shape"] = shape
    if config.get("sparse") and "ragged" not in config:
        config["sparse"] = True


def _batch_norm(config, notes):
    axis = config.get("axis", -1)
    axes = list(axis) if isinstance(axis, list | tuple) else [axis]
    name = config.get("name")
    if config.get("virtual_batch_size"):
        # Keras 2 splits the batch, which moves the other axes to the right.
        axes = [axis - (axis >= 0) for axis in axes]
        notes.append(
            f"{name!r} normalized ghost batches of "
            f"{config['virtual_batch_size']} in training: it is plain batch "
            "normalization now, which computes the same at inference."
        )
    if config.get("renorm"):
        notes.append(
            f"{name!r} used batch renormalization in training: it is plain "
            "batch normalization now, which computes the same at inference."
        )
    config["axis"] = axes[0] if len(axes) == 1 else axes


def _attention(config, notes):
    if isinstance(config.get("score_mode"), dict):
        config["score_mode"] = config["score_mode"].get("config")


def _lambda(config, notes):
    """Writes Python code as Keras 3 does; it runs only if allowed."""
    function = config.get("function")
    if isinstance(function, list) and len(function) == 3:
        keys = "code", "defaults", "closure"
        config["function"] = {
            "class_name": "__lambda__",
            "config": dict(zip(keys, function, strict=True)),
        }


def _random_contrast(config, notes):
    """Writes a factor for both directions, which Keras 3 reads as one."""
    factor = config.get("factor")
    if isinstance(factor, int | float):
        config["factor"] = [factor, factor]


def _random_crop(config, notes):
    """Replaces `RandomCrop` by what it does at inference in Keras 2."""
    config.pop("seed", None)
    config["crop_to_aspect_ratio"] = True
    notes.append(
        f"{config.get('name')!r} is a Resizing that keeps the aspect ratio "
        "now: RandomCrop of this file computes that at inference, and that "
        "of later versions does not. Crop images at random before training."
    )


def _one_or_list(config, notes):
    """Unpacks a list of one axis."""
    axis = config.get("axis")
    if isinstance(axis, list) and len(axis) == 1:
        (config["axis"],) = axis


SPECIAL = {
    "InputLayer": _input_layer,
    "BatchNormalization": _batch_norm,
    "Attention": _attention,
    "Lambda": _lambda,
    "RandomContrast": _random_contrast,
    "RandomCrop": _random_crop,
    "LayerNormalization": _one_or_list,
    "Normalization": _one_or_list,
}
