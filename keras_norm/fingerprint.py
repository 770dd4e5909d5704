"""Marks saved weights with their layer if no config names its class.

A layer that `norm_scope` creates in place of batch normalization may be inside
a composite layer, whose config does not name it. Outside the scope, the same
config creates batch normalization, whose weights can have the same shapes. A
mark next to the weights makes such a load fail instead of giving wrong results.
"""

import json

import keras
import numpy as np

KEY = "norm_scope"
# Options without effect on the output of the layer.
IGNORED = ("name", "trainable", "dtype")


def write_fingerprint(layer, store):
    """Adds the class and the config of a layer to its saved weights."""
    text = json.dumps(_describe(layer))
    store[KEY] = np.frombuffer(text.encode(), "uint8")


def read_without_fingerprint(layer, store, required=False):
    """Checks the mark of saved weights and returns them without it.

    Args:
        layer: The layer to load the weights into.
        store: Mapping from name to saved array of a layer.
        required: Whether weights without a mark belong to another layer.

    Raises:
        ValueError: if the weights belong to another layer.
    """
    keys = list(store.keys())
    ours = _describe(layer)
    if KEY in keys:
        saved = json.loads(bytes(np.array(store[KEY], "uint8")))
    else:
        saved = {"class": "batch normalization"} if required else ours
    if saved != ours:
        raise ValueError(
            f"{layer.name!r} is {_text(ours)} here and was {_text(saved)} when "
            "its weights were saved. Load inside the same "
            "`keras_norm.norm_scope`, with the same arguments."
        )
    return {key: store[key] for key in keys if key != KEY}


def _describe(layer):
    config = {k: v for k, v in layer.get_config().items() if k not in IGNORED}
    description = {
        "class": keras.saving.get_registered_name(type(layer)),
        "config": config,
    }
    return json.loads(json.dumps(description, default=str, sort_keys=True))


def _text(description):
    options = description.get("config", {})
    simple = {
        k: v for k, v in options.items() if isinstance(v, (int, float, str))
    }
    arguments = ", ".join(f"{k}={v!r}" for k, v in simple.items())
    return description["class"] + (f"({arguments})" if arguments else "")
