"""Freezes layers for `--freeze`."""

import keras

import keras_norm
from keras_norm import _keras_internals
from recipes.errors import RecipeError


def freeze(model, what, head):
    """Makes layers of a model untrainable, in place.

    Args:
        model: A network.
        what: `"backbone"` for every layer outside the head; `"norm"` for norms
            and TLUs, where batch norms use their moving moments; None for
            nothing.
        head: `f(model)` returns the layers of the head.

    Raises:
        RecipeError: If no layer is frozen, or nothing is left to train.
    """
    if what is None:
        return
    layers = [
        layer
        for layer in _keras_internals.all_layers(model)
        if layer.weights and not isinstance(layer, keras.Model)
    ]
    if what == "norm":
        frozen = [
            layer
            for layer in layers
            if keras_norm.is_norm_layer(layer)
            or isinstance(layer, keras_norm.TLU)
        ]
    else:
        kept = {
            id(sublayer)
            for layer in head(model)
            for sublayer in _keras_internals.all_layers(layer)
        }
        frozen = [layer for layer in layers if id(layer) not in kept]
    if not frozen:
        raise RecipeError(
            f"--freeze={what}: {model.name} has no layers to freeze."
        )
    for layer in frozen:
        layer.trainable = False
    if not model.trainable_variables:
        raise RecipeError(
            f"--freeze={what} leaves nothing of {model.name} to train."
        )
