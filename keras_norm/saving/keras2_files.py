"""Reads files of Keras 2: converts their configs to Keras 3."""

from keras_norm.errors import ConversionError

SEPARABLE = (
    "groups",
    "kernel_initializer",
    "kernel_regularizer",
    "kernel_constraint",
)
# Arguments that Keras 2 saved and the layers of Keras 3 do not accept.
REMOVED_ARGUMENTS = {
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "DepthwiseConv1D": ("groups",),
    "DepthwiseConv2D": ("groups",),
    "SeparableConv1D": SEPARABLE,
    "SeparableConv2D": SEPARABLE,
    "GRU": ("time_major",),
    "LSTM": ("time_major",),
    "SimpleRNN": ("time_major",),
}
MODELS = ("Functional", "Model", "Sequential")


def upgrade_config(saved, notes):
    """Converts a config of Keras 2 to Keras 3.

    Args:
        saved: The parsed JSON of the file; changed in place.
        notes: List of strings, to which remarks for the user are added.

    Raises:
        ConversionError: for an operation that Keras 3 does not support.
    """
    if isinstance(saved, list):
        return [upgrade_config(value, notes) for value in saved]
    if not isinstance(saved, dict):
        return saved
    kind, config = saved.get("class_name"), saved.get("config")
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        raise ConversionError(
            f"the file contains {config['name']!r}, an operation of "
            "TensorFlow that is not a layer and that Keras 3 cannot load: "
            "replace it by a layer in the code that builds the model"
        )
    if kind == "Sequential":
        saved["config"] = config = _add_input(config, notes)
    elif kind in MODELS:
        _upgrade_graph(config)
        saved["class_name"] = "Model"
    if kind in MODELS:
        if "module" in saved:
            saved |= {"module": "keras", "registered_name": None}
    elif kind and isinstance(config, dict):
        shape = config.pop("batch_input_shape", None)
        if kind == "InputLayer" and shape:
            config["batch_shape"] = shape
        if kind == "BatchNormalization" and isinstance(config["axis"], list):
            (config["axis"],) = config["axis"]
        for name in REMOVED_ARGUMENTS.get(kind, ()):
            # time_major=True changes the layer: Keras itself refuses it.
            if config.get(name) is not True:
                config.pop(name, None)
        if isinstance(config.get("layer"), dict):
            # Wrappers look up classes by module, which was new in Keras 2.12.
            kind = config["layer"]["class_name"]
            wrapped = {"module": "keras.layers", "registered_name": kind}
            config["layer"] = wrapped | config["layer"]
    return {key: upgrade_config(value, notes) for key, value in saved.items()}


def _add_input(config, notes):
    """Adds an input to the config of a Sequential, if its shape is known."""
    if isinstance(config, list):
        config = {"name": "sequential", "layers": config}
    first = config["layers"][0]
    shape = first["config"].get("batch_input_shape")
    if shape and first["class_name"] != "InputLayer":
        name = first["config"]["name"]
        config["layers"].insert(
            0,
            {
                "module": "keras.layers",
                "class_name": "InputLayer",
                "config": {"batch_shape": shape, "name": f"{name}_input"},
                "registered_name": None,
            },
        )
        notes.append(
            f"The Sequential model {config['name']!r} of Keras 2 starts with "
            f"{name!r}: added a keras.Input of shape {tuple(shape)}."
        )
    return config


def _upgrade_graph(config):
    """Fixes the tensor references of a functional model, in place."""
    layers = config["layers"]
    for layer in layers:
        if layer["class_name"] not in MODELS:
            continue
        inner, ends = (
            [ref for ref in _references(nodes) if ref[0] == layer["name"]]
            for nodes in (
                [other["inbound_nodes"] for other in layers],
                config["output_layers"],
            )
        )
        if max(ref[1] for ref in inner + ends) < len(layer["inbound_nodes"]):
            continue
        # Keras 2 counts the calls of a nested model from one. Keras 3 does so
        # only for outputs of a functional nested model.
        for ref in inner + (
            ends if layer["class_name"] == "Sequential" else []
        ):
            ref[1] -= 1
    for key in "input_layers", "output_layers":
        if isinstance(config[key], list) and len(config[key]) == 1:
            (config[key],) = config[key]


def _references(nodes):
    """Yields the lists `[name, call, tensor, ...]` in lists and dicts."""
    if isinstance(nodes, dict):
        nodes = list(nodes.values())
    if isinstance(nodes, list):
        if [type(value) for value in nodes[:3]] == [str, int, int]:
            yield nodes
        for value in nodes:
            yield from _references(value)
