"""Layers that are not trained."""

import keras

import keras_norm
from keras_norm.conversion import graph
from recipes.errors import RecipeError


def freeze(model, what, head):
    """Makes layers of a model untrainable, in place.

    Args:
        model: A network.
        what: `"backbone"`, every layer that is not of the head; `"norm"`,
            normalizations and thresholds, batch norms with the moving moments
            that they have; None for nothing.
        head: `f(model)` gives the layers of its head.

    Raises:
        RecipeError: if that leaves nothing to train, or nothing is frozen.
    """
    if what is None:
        return
    layers = [
        layer
        for layer in graph.all_layers(model)
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
            id(part)
            for layer in head(model)
            for part in graph.all_layers(layer)
        }
        frozen = [layer for layer in layers if id(layer) not in kept]
    if not frozen:
        raise RecipeError(f"--freeze={what}: {model.name} has no such layer.")
    for layer in frozen:
        layer.trainable = False
    if not model.trainable_variables:
        raise RecipeError(
            f"--freeze={what} leaves nothing of {model.name} to train."
        )
