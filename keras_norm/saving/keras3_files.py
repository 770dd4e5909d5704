"""Reads files of older Keras 3: arguments that were dropped or changed."""

import re

import keras

from keras_norm.saving.keras2 import compare
from keras_norm.saving.keras2 import translate

# Versions whose image layers have other arguments; seen in 3.0.5 to 3.5.0, and
# no longer in 3.8.0.
OLD_IMAGE_LAYERS = re.compile(r"3\.[0-5](\.|\Z)")


def update_config(config, version, notes):
    """Updates a config in place.

    Args:
        config: Config of a model that an older Keras 3 saved.
        version: That version, a string.
        notes: List of strings, to which remarks for the user are added.

    Returns:
        True if the config was changed.
    """
    changed, waiting = False, [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        if not isinstance(value, dict):
            continue
        waiting += value.values()
        if translate.is_layer(value) and OLD_IMAGE_LAYERS.match(version):
            changed |= _update_layer(value, notes)
    return changed


def _update_layer(saved, notes):
    kind, config = saved["class_name"], saved["config"]
    if saved.get("module", "keras.layers") != "keras.layers":
        return False
    if kind == "RandomRotation" and "value_range" in config:
        # It had no effect.
        del config["value_range"]
        return True
    if kind in ("RandomContrast", "RandomCrop"):
        translate.SPECIAL[kind](config, notes)
        saved["class_name"] = "Resizing" if kind == "RandomCrop" else kind
        return True
    return False


def describe_differences(model, config):
    """Lists the arguments that Keras reads as other values than in the file.

    Args:
        model: The loaded model.
        config: Config of the model in the file, which was loaded.

    Returns:
        A list of lines.
    """
    lines, waiting = [], [(model, config)]
    while waiting:
        layer, saved = waiting.pop()
        children = saved["config"].get("layers")
        if isinstance(layer, keras.Model) and isinstance(children, list):
            loaded = {child.name: child for child in layer.layers}
            waiting += (
                (loaded[child["config"]["name"]], child)
                for child in children
                if translate.is_layer(child)
                and child["config"]["name"] in loaded
            )
        elif saved.get("module") == "keras.layers":
            lines += (
                f"{layer.name!r}: Keras {keras.__version__} reads "
                f"{key}={value} of the file as {given}."
                for key, value, given in compare.differences(layer, saved)
            )
    return lines
