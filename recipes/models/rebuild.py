"""Rebuilds a model from a changed config."""

import keras


def rebuild_model(model, change_config):
    """Returns a new model with the same layers and newly initialized weights.

    Args:
        model: Functional model; it may be nested.
        change_config: `f(config)` returns the serialized model to build.

    Raises:
        Exception: Keras and each layer raise different errors.
    """
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return keras.saving.deserialize_keras_object(change_config(config))
