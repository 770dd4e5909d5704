"""What a saved layer tells of itself when its class is in no config.

A layer that `norm_scope` puts in the place of batch normalization may lie
inside a composite layer, whose config does not name it. Outside the scope the
same config makes batch normalization again, whose weights can look alike. A
mark beside the weights lets every such load fail, and never give other numbers.
"""

import json

import keras
import numpy as np

KEY = "norm_scope"
# Of no effect on what the layer computes.
IGNORED = ("name", "trainable", "dtype")


def write_fingerprint(layer, store):
    """Adds the class and the config of a layer to its saved weights."""
    text = json.dumps(_describe(layer))
    store[KEY] = np.frombuffer(text.encode(), "uint8")


def read_without_fingerprint(layer, store, required=False):
    """The saved weights without the mark.

    Args:
        layer: The layer that is to take the weights.
        store: What was saved of a layer, array by name.
        required: Whether weights without a mark are those of another layer.

    Raises:
        ValueError: if they are those of another layer.
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
