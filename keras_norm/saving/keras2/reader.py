"""Reads whole models that Keras 2 saved."""

import keras

from keras_norm.saving import config_checks
from keras_norm.saving import keras_internals
from keras_norm.saving.keras2 import translate
from keras_norm.saving.keras2 import weights
from keras_norm.saving.keras2.builder import Builder
from keras_norm.saving.keras2.built import set_trainable


def read_model(prepared, unsafe, notes, modules=()):
    """Builds a model of Keras 3 and restores the weights of its file.

    Args:
        prepared: `formats.PreparedFile` with the config of the model.
        unsafe: If True, code in the file may run.
        notes: `load.Notes`, to which remarks for the user are added.
        modules: Names of modules whose classes the file may contain.

    Returns:
        A Keras model.

    Raises:
        ConversionError: for layers or arguments that Keras 3 does not have.
    """
    path, config = prepared.path, prepared.old_config

    def check(saved):
        if not unsafe:
            config_checks.check_config(saved, repr(str(path)), modules)

    builder = Builder(
        notes, check, layer_names(config), not prepared.is_hdf5, not unsafe
    )
    built = builder.build(config)
    model = built.layer
    if isinstance(model, keras.Model) and model.built:
        if prepared.is_hdf5:
            weights.restore_hdf5(built, path)
        else:
            with keras_internals.open_weights(path) as store:
                weights.restore_archive(built, store)
        set_trainable(built)
    if builder.renamed:
        notes.renamed = builder.renamed
        notes.append(_describe(builder.renamed))
    return model


def layer_names(config):
    """Returns the names of all layers in a config, which may be nested."""
    names, waiting = set(), [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if translate.is_layer(value):
                names.add(str(value["config"]["name"]))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return names


def _describe(renamed):
    """Returns a line about new names of layers."""
    old, new = next(iter(renamed.items()))
    return (
        f"Renamed {len(renamed)} layers, because Keras 3 does not accept '/' "
        f"in names: {old!r} is {new!r} now, and so on."
    )
