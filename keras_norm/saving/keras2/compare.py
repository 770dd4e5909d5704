"""Compares the config of a loaded layer with the config in its file."""

import re

import keras

from keras_norm.saving.keras2 import layer_table
from keras_norm.saving.keras2 import translate

UNEXPECTED = re.compile(
    r"unexpected keyword argument '(\w+)'|keyword arguments[^{]*(\{.*\})",
    re.DOTALL,
)
# Objects that a config holds by name, by class and config, or as they are.
GETTERS = {
    "activation": keras.activations.get,
    "initializer": keras.initializers.get,
    "regularizer": keras.regularizers.get,
    "constraint": keras.constraints.get,
}
MISSING = object()


def unexpected_argument(text, config):
    """Returns the argument that an error of Keras names, or None."""
    found = UNEXPECTED.search(text)
    if found is None:
        return None
    if found[2]:
        return found[2]
    return f"{found[1]}={config.get(found[1])}"


def check_layer(layer, new, saved):
    """Raises an error if a layer does not have the config of its file.

    Args:
        layer: Layer of Keras 3.
        new: Its translated saved form, which it was loaded from.
        saved: Its saved form in the file, for errors.

    Raises:
        ConversionError: for an argument that Keras dropped or changed.
    """
    for key, value, given in differences(layer, new):
        raise translate.refusal(
            saved["config"].get("name"),
            saved["class_name"],
            f"{key}={value}, which Keras {keras.__version__} reads as {given}",
        )


def differences(layer, saved):
    """Yields `(key, value in the file, value of the layer)` that differ."""
    loaded = layer.get_config()
    unchecked = layer_table.UNCHECKED.get(saved["class_name"], ())
    for key, value in saved["config"].items():
        given = loaded.get(key, getattr(layer, key, MISSING))
        if key not in unchecked and (
            given is MISSING or not _same(key, value, given)
        ):
            yield key, value, "nothing" if given is MISSING else given


def _same(key, value, given):
    """Returns True if two values of an argument mean the same."""
    for suffix, get in GETTERS.items():
        if key.endswith(suffix) and not _is_layer(value):
            return _same_object(get(value), get(given))
    if key == "dtype":
        value, given = _policy(value), _policy(given)
        return value is None or value == given
    if isinstance(value, dict) and "class_name" in value:
        # Layers inside wrappers are compared when the wrapper is tested, and
        # code in a Lambda is not a value.
        return isinstance(given, dict) and _same_saved(value, given)
    if isinstance(value, list | tuple):
        if isinstance(given, int | float | str) and len(value) == 1:
            return _same(key, value[0], given)
        return (
            isinstance(given, list | tuple)
            and len(value) == len(given)
            and all(map(lambda a, b: _same(key, a, b), value, given))
        )
    if isinstance(given, list | tuple) and isinstance(value, int | float):
        # One number stands for all dimensions, or for both signs.
        same = all(item == value for item in given)
        return same or list(given) == [-value, value]
    # Keras draws a seed if there is none.
    return value == given or (key == "seed" and value is None)


def _same_saved(value, given):
    kind = translate.class_name(value)
    if kind != given.get("class_name") or not isinstance(value["config"], dict):
        return kind == given.get("class_name")
    if kind == "__lambda__":
        return True
    return all(
        key in given["config"] and _same(key, item, given["config"][key])
        for key, item in value["config"].items()
        if key not in ("name", "trainable")
    )


def _same_object(one, other):
    """Compares functions, or objects by their class and config."""
    if not hasattr(one, "get_config") or not hasattr(other, "get_config"):
        return one is other or one == other
    return type(one) is type(other) and keras.tree.flatten(
        _plain(one)
    ) == keras.tree.flatten(_plain(other))


def _plain(value):
    return {key: str(item) for key, item in value.get_config().items()}


def _is_layer(value):
    return isinstance(value, dict) and translate.is_layer(value)


def _policy(value):
    if isinstance(value, dict):
        value = value["config"].get("name")
    return getattr(value, "name", value)
