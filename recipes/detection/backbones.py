"""Networks that give a pyramid its maps, new or out of a classifier."""

import keras

import keras_norm
from keras_norm.conversion import graph
from keras_norm.conversion import weights
from recipes.errors import RecipeError
from recipes.errors import unknown
from recipes.models import blocks
from recipes.models import classifiers
from recipes.models import norms

# The levels of the maps that a backbone gives; level l has a stride of 2**l.
LEVELS = (3, 4, 5)
RESNETS = ("ResNet50", "ResNet101", "ResNet152")


def names():
    """The names that `make` knows."""
    return [*RESNETS, classifiers.SMALL_RESNET]


def make(name, norm, image_shape):
    """A new backbone.

    Args:
        name: Of `names()`.
        norm: A `keras_norm.Norm`.
        image_shape: `(height, width, channels)`.

    Returns:
        Functional model from images in [-1, 1] to a list of maps, one a level.

    Raises:
        RecipeError: for an unknown name, or a norm that it cannot take.
    """
    if name not in names():
        raise unknown("model", name, names())
    with norms.report_build_errors(name, norm, f" for images of {image_shape}"):
        if name == classifiers.SMALL_RESNET:
            inputs = keras.Input(image_shape)
            maps = blocks.small_resnet(inputs, norm)[-len(LEVELS) :]
            return keras.Model(inputs, maps, name=name)
        constructor = getattr(keras.applications, name)
        model = constructor(
            include_top=False, weights=None, input_shape=image_shape
        )
        model, _ = keras_norm.convert(model, norm, fresh=True)
    return _with_maps(name, model)


def out_of(path, model, image_shape):
    """The backbone that lies in a classifier, at the size of a detector.

    Args:
        path: Path of the file that it came from, for messages.
        model: Functional model from one image.
        image_shape: `(height, width, channels)` of the detector's images.

    Returns:
        As `make`, with the weights of the model.

    Raises:
        RecipeError: for a model without maps of every level, or one that
            cannot be made again at that size.
    """
    name = f"--init_model={path}"
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise RecipeError(
            f"{name} must have one input of images, and has {shapes}."
        )
    if shapes[0][-1] != image_shape[-1]:
        raise RecipeError(
            f"{name} takes images of {shapes[0][-1]} channels, and this "
            f"dataset has {image_shape[-1]}."
        )
    if None in shapes[0]:
        model = _resized(name, model, image_shape)
    model = _with_maps(name, model)
    if tuple(model.inputs[0].shape[1:]) != tuple(image_shape):
        model = _resized(name, model, image_shape)
    return model


def _with_maps(name, model):
    """The part of a model up to the last map of every level."""
    size = model.inputs[0].shape[1:3]
    maps = {}
    for node in graph.nodes(model):
        for tensor in graph.output_tensors(node):
            for level in LEVELS:
                wanted = tuple(-(-side // 2**level) for side in size)
                if len(tensor.shape) == 4 and tensor.shape[1:3] == wanted:
                    maps[level] = tensor
    missing = [2**level for level in LEVELS if level not in maps]
    if missing:
        raise RecipeError(
            f"{name} has no map of stride {missing[0]} for images of "
            f"{tuple(size)}: a backbone has maps of the strides "
            f"{', '.join(str(2**level) for level in LEVELS)}."
        )
    outputs = [maps[level] for level in LEVELS]
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _resized(name, model, image_shape):
    """The same layers and weights for images of another size."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    batch_shape = [None, *image_shape]
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = batch_shape
    try:
        new = keras.saving.deserialize_keras_object(config)
        weights.copy_weights(model, new)
    except Exception as error:
        # Keras and every layer have errors of their own.
        message = " ".join(str(error).split())
        raise RecipeError(
            f"{name} cannot take images of {tuple(image_shape)}: {message}"
        ) from error
    return new
