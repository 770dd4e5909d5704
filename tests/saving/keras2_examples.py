"""Writes files in the formats of Keras 2 from models of Keras 3."""

import json
import zipfile

import h5py
import keras
from keras.src.saving import serialization_lib

VERSION = "2.9.0"
HOMES = {"Functional": "keras.src.engine.functional", "Sequential": "keras"}
MODELS = ("Functional", "Model", "Sequential")


def write_hdf5(path, model, has_input=True, edit=None):
    """Writes the file of `model.save("name.h5")` in Keras 2.

    Args:
        path: Path that ends in .h5.
        model: Keras model.
        has_input: If True, a Sequential lists its input, as in TF 2.2 and
            later.
        edit: Function that changes the config in place, or None.
    """
    keras.saving.save_model(model, path)
    with h5py.File(path, "r+") as file:
        config = _old(json.loads(file.attrs["model_config"]), has_input)
        if edit:
            edit(config)
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = VERSION


def write_archive(path, model):
    """Writes the file of `model.save("name.keras")` of TF 2.12 and later."""
    keras.saving.save_model(model, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = _old(json.loads(members["config.json"]), True, "keras.layers")
    members["config.json"] = json.dumps(config)
    members["metadata.json"] = json.dumps({"keras_version": VERSION})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _old(saved, has_input, module=None):
    """Returns the config of a layer or a model in Keras 2."""
    kind, config = saved["class_name"], dict(saved["config"])
    old = {"class_name": kind, "config": config}
    if module:
        old |= {"module": HOMES.get(kind, module), "registered_name": None}
        if kind == "Functional":
            old["registered_name"] = kind
    if "dtype" in config:
        config["dtype"] = "float32"
    if kind == "InputLayer":
        config["batch_input_shape"] = config.pop("batch_shape")
        config["ragged"] = False
    if kind == "BatchNormalization":
        config["axis"] = [config["axis"]]
    if kind == "DepthwiseConv2D":
        config["groups"] = 1
    if kind == "LSTM":
        config["time_major"] = False
    if kind == "TimeDistributed":
        config["layer"] = _old(config["layer"], has_input, module)
    if kind == "Sequential":
        _make_sequential(config, has_input, module)
    elif kind in MODELS:
        _make_graph(config, has_input, module)
    return old


def _make_sequential(config, has_input, module):
    config["layers"] = [
        _old(layer, has_input, module) for layer in config["layers"]
    ]
    config.pop("build_input_shape", None)
    source, first = config["layers"][:2]
    if first["class_name"] not in MODELS:
        shape = source["config"]["batch_input_shape"]
        first["config"]["batch_input_shape"] = shape
    if not has_input:
        del config["layers"][0]


def _make_graph(config, has_input, module):
    """Counts calls of nested models from one, as Keras 2 does."""
    layers = [_old(x, has_input, module) for x in config["layers"]]
    nested = [x["config"]["name"] for x in layers if x["class_name"] in MODELS]

    def reference(tensor):
        name, call, index = tensor["config"]["keras_history"]
        return [name, call + (name in nested), index, {}]

    for saved, layer in zip(config["layers"], layers, strict=True):
        layer["name"] = saved["name"]
        layer["inbound_nodes"] = [
            [reference(tensor) for tensor in _tensors(node["args"])]
            for node in saved["inbound_nodes"]
        ]
    config["layers"] = layers
    for key in "input_layers", "output_layers":
        ends = config[key]
        ends = [ends] if isinstance(ends[0], str) else ends
        kinds = {x["name"]: x["class_name"] for x in layers}
        # Keras 3 also counts the calls of a functional model from one.
        config[key] = [
            [name, call + (kinds[name] == "Sequential"), index]
            for name, call, index in ends
        ]


def _tensors(arguments):
    for argument in arguments:
        if isinstance(argument, list):
            yield from _tensors(argument)
        else:
            yield argument


def in_safe_mode():
    """Returns Keras' safe mode: True, False, or None if it is not set."""
    return serialization_lib.in_safe_mode()


def unsafe_scope():
    """Enables unsafe deserialization in a scope."""
    return serialization_lib.SafeModeScope(safe_mode=False)


def write_weights(path, model):
    """Writes the file of `model.save_weights("name.h5")` in Keras 2."""
    keras.saving.save_model(model, path)
    with h5py.File(path, "r+") as file:
        weights = file["model_weights"]
        for key, value in weights.attrs.items():
            file.attrs[key] = value
        for name in list(weights):
            file.move(f"model_weights/{name}", name)
        del file["model_weights"], file.attrs["model_config"]
