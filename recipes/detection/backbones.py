"""Backbones of the feature pyramid, new or extracted from a classifier."""

from etils import epy

from recipes.errors import RecipeError
from recipes.errors import unknown_name_error
from recipes.models import classifiers

# Checking the name of a backbone does not load Keras.
with epy.lazy_imports():
    import keras

    import keras_norm
    from keras_norm import errors
    from keras_norm.conversion import rebuild
    from keras_norm.conversion import weights
    from keras_norm.graphs import graph
    from recipes.models import blocks
    from recipes.models import norms

# Levels of a backbone's output maps. Level l has a stride of 2**l.
LEVELS = (3, 4, 5)
RESNETS = ("ResNet50", "ResNet101", "ResNet152")


def backbone_names():
    """Returns the names that `build_backbone` accepts."""
    return [*RESNETS, classifiers.SMALL_RESNET]


def check_backbone(name):
    """Raises a `RecipeError` for an unknown name of a backbone."""
    if name not in backbone_names():
        raise unknown_name_error("model", name, backbone_names())


def build_backbone(name, norm, image_shape):
    """Builds a newly initialized backbone.

    Args:
        name: One of `backbone_names()`.
        norm: A `keras_norm.Norm`.
        image_shape: `(height, width, channels)`.

    Returns:
        Functional model from images in [-1, 1] to a list of maps, one per
        level.

    Raises:
        RecipeError: for an unknown name, or if the model cannot be built with
            the norm.
    """
    check_backbone(name)
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


def extract_backbone(path, model, image_shape):
    """Extracts the backbone of a classifier and resizes its input.

    Args:
        path: Path of the classifier's file, for error messages.
        model: The classifier, a Functional model with one image input.
        image_shape: `(height, width, channels)` of the detector's images.

    Returns:
        A model as from `build_backbone`, with the weights of the classifier.

    Raises:
        RecipeError: if the model has no map for a level, or cannot be rebuilt
            for images of that size.
    """
    name = f"--init_model={path}"
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise RecipeError(
            f"{name} must have a single image input. Received: inputs of the "
            f"shapes {shapes}"
        )
    if shapes[0][-1] != image_shape[-1]:
        raise RecipeError(
            f"{name} expects images with {shapes[0][-1]} channels, but the "
            f"images of the dataset have {image_shape[-1]}."
        )
    if None in shapes[0]:
        model = _resized(name, model, image_shape)
    model = _with_maps(name, model)
    if tuple(model.inputs[0].shape[1:]) != tuple(image_shape):
        model = _resized(name, model, image_shape)
    return model


def _with_maps(name, model):
    """Returns the model up to the last map of each level."""
    size = model.inputs[0].shape[1:3]
    maps = {}
    for node in graph.nodes(model):
        for tensor in graph.output_tensors(node):
            for level in LEVELS:
                shape = tuple(-(-side // 2**level) for side in size)
                if len(tensor.shape) == 4 and tensor.shape[1:3] == shape:
                    maps[level] = tensor
    missing = [2**level for level in LEVELS if level not in maps]
    if missing:
        raise RecipeError(
            f"{name} cannot be a backbone: it has no feature map of stride "
            f"{missing[0]} for images of {tuple(size)}. Maps of the strides "
            f"{', '.join(str(2**level) for level in LEVELS)} are needed."
        )
    outputs = [maps[level] for level in LEVELS]
    return keras.Model(model.inputs[0], outputs, name=model.name)


def _resized(name, model, image_shape):
    """Rebuilds a model with its weights for images of another size."""

    def change_input_shape(config):
        for layer in config["layers"]:
            if layer["class_name"] == "InputLayer":
                layer["config"]["batch_shape"] = [None, *image_shape]
        return config

    try:
        new = rebuild.rebuild_from_config(model, change_input_shape)
        weights.copy_weights(model, new)
    except errors.ConversionError as error:
        raise RecipeError(
            f"{name} cannot be rebuilt for images of {tuple(image_shape)}: "
            f"{error}"
        ) from error
    return new
