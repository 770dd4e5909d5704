"""Rebuilds models in float32."""

import keras

from keras_norm import _keras_internals
from keras_norm.conversion import weights
from keras_norm.conversion.rebuild import rebuild_from_config
from keras_norm.errors import ConversionError
from recipes.errors import RecipeError

HALF_PRECISION_POLICIES = (
    "mixed_bfloat16",
    "mixed_float16",
    "bfloat16",
    "float16",
)


def rebuild_in_float32(model):
    """Returns a copy of a model that computes in float32.

    Args:
        model: Functional model with any dtype policy; it may be nested.

    Raises:
        RecipeError: If the model cannot be rebuilt from its config.
    """
    try:
        new = rebuild_from_config(model, _with_float32_policies, "float32")
    except ConversionError as error:
        raise RecipeError(
            f"{model.name} cannot be rebuilt in float32: {error}"
        ) from error
    _copy_weights(model, new)
    return new


def dtype_policies(model):
    """Returns the sorted names of the dtype policies of layers with weights."""
    return sorted(
        {
            layer.dtype_policy.name
            for layer in _keras_internals.all_layers(model)
            if layer.weights and not isinstance(layer, keras.Model)
        }
    )


def _with_float32_policies(config):
    """Returns a config with half-precision policies replaced by float32."""
    if isinstance(config, dict):
        is_policy = config.get("class_name") == "DTypePolicy"
        if is_policy and config["config"]["name"] in HALF_PRECISION_POLICIES:
            return "float32"
        return {
            key: "float32"
            if key == "dtype"
            and isinstance(value, str)
            and value in HALF_PRECISION_POLICIES
            else _with_float32_policies(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32_policies(value) for value in config)
    return config


def _copy_weights(old, new):
    old_layers = _keras_internals.all_layers(old)
    new_layers = _keras_internals.all_layers(new)
    names = [
        [layer.name for layer in family] for family in (old_layers, new_layers)
    ]
    if names[0] != names[1]:
        raise RecipeError(
            f"{old.name} has other layers after it is rebuilt from its config."
        )
    for layer in new_layers:
        if layer.compute_dtype in HALF_PRECISION_POLICIES:
            raise RecipeError(
                f"{layer.name!r}, a {type(layer).__name__}, cannot be "
                f"rebuilt in float32: it stays {layer.compute_dtype}."
            )
    try:
        weights.copy_weights(old, new)
    except ConversionError as error:
        raise RecipeError(f"{old.name}: {error}") from error
