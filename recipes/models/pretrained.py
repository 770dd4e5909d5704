"""Loads pretrained models, converts their norms and replaces their heads."""

import keras

import keras_norm
from keras_norm import variables
from keras_norm.graphs import graph
from keras_norm.saving import load as load_lib
from recipes.errors import RecipeError
from recipes.models import classifiers
from recipes.models import precision as precision_lib

HEAD = "logits"


def load_classifier(
    path,
    norm,
    image_shape,
    num_classes,
    precision,
    needs_head=False,
    fit=None,
):
    """Loads a classifier or backbone as a network from images to logits.

    Removes softmax and other activations at the end. A Dense layer with
    `num_classes` units keeps its weights. Any other head is replaced by a newly
    initialized Dense layer, after global pooling if needed.

    Args:
        path: Path of a `.keras` or legacy HDF5 file.
        norm: A `keras_norm.Norm` to convert batch normalization to, or None.
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        precision: Name of the dtype policy that the run asks for.
        needs_head: True if a newly initialized head is an error.
        fit: As in `read_model`.

    Returns:
        `(model, notes)`, where notes are sentences about conversion and head.

    Raises:
        RecipeError: If the file cannot be read or converted, or does not fit
            the images or classes.
    """
    model, notes = read_model(path, norm, precision, fit)
    _check_input(path, model, image_shape)
    num_outputs = model.outputs[0].shape[-1]
    model, kept, note = _with_head(model, num_classes)
    if needs_head and not kept:
        raise RecipeError(
            f"{path} has {num_outputs} outputs, but the dataset has "
            f"{num_classes} classes. Use another --checkpoint or --dataset."
        )
    if not model.trainable_variables:
        raise RecipeError(
            f"--init_model={path}: every weight is frozen (trainable=False). "
            "Set `model.trainable = True` and save the model again."
        )
    return model, [*notes, note]


def read_model(path, norm, precision, fit=None):
    """Loads a model and converts its batch norms if requested.

    Args:
        path: Path of a `.keras` or legacy HDF5 file.
        norm: A `keras_norm.Norm` to convert batch normalization to, or None.
        precision: Name of the dtype policy that the run asks for.
        fit: Dict of arguments of `keras_norm.convert` to fit the converted
            model to data, or None to copy the weights alone.

    Returns:
        `(model, notes)`, where notes are sentences about the conversion.

    Raises:
        RecipeError: If the file cannot be read or converted, or has another
            dtype policy.
    """
    try:
        model, notes = load_lib.load_model(path)
        if norm is not None:
            model, report = keras_norm.convert(model, norm, **(fit or {}))
            notes = [*notes, report.summary(), *report.notes]
            if report.calibration is not None:
                notes = report.calibration.describe()
    except keras_norm.ConversionError as error:
        text = str(error)
        if "unsafe" in text:
            text = (
                "it contains Python code, such as a Lambda layer, which is "
                "never run. Replace the code by registered layers, copy the "
                "weights and save the model again."
            )
        raise RecipeError(f"--init_model={path}: {text}") from error
    policies = precision_lib.dtype_policies(model)
    if policies and precision not in policies:
        raise RecipeError(
            f"--precision={precision} does not match --init_model={path}, "
            f"which was saved in {', '.join(policies)}. Pass that policy."
        )
    return model, notes


def _check_input(path, model, image_shape):
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise RecipeError(
            f"--init_model={path} must have one input and one output, but has "
            f"{len(model.inputs)} and {len(model.outputs)}."
        )
    expected = model.inputs[0].shape[1:]
    fits = len(expected) == 3 and all(
        size in (None, actual)
        for size, actual in zip(expected, image_shape, strict=True)
    )
    if not fits:
        raise RecipeError(
            f"--init_model={path} takes images of {expected}, but the images "
            f"are {tuple(image_shape)}. Change --image_size or --dataset."
        )


def _with_head(model, num_classes):
    """Gives a model `num_classes` logits.

    Returns:
        `(model, is_kept, note)`, where `is_kept` is True if the head was kept.
    """
    features = model.outputs[0]
    last, inputs = _producer(features)
    while isinstance(last, (keras.layers.Activation, keras.layers.Softmax)):
        features = inputs
        last, inputs = _producer(features)
    kept = tuple(features.shape) == (None, num_classes)
    if isinstance(last, keras.layers.Dense):
        head = keras.layers.Dense(
            num_classes, use_bias=last.use_bias, name=last.name
        )
        logits = head(inputs)
        if kept:
            variables.copy_values(last.weights, head.weights)
    elif kept:
        logits = features
    else:
        if len(features.shape) == 4:
            features = keras.layers.GlobalAveragePooling2D()(features)
        logits = keras.layers.Dense(num_classes, name=HEAD)(features)
    what = "keeps its head" if kept else "gets a newly initialized head"
    network = keras.Model(model.inputs, logits, name=model.name)
    return (
        classifiers.with_float32_logits(network),
        kept,
        f"{model.name} {what} of {num_classes} logits.",
    )


def _producer(tensor):
    """Returns the layer that outputs a tensor, and its first input."""
    node, _ = graph.producing_node(tensor)
    return graph.operation(node), next(iter(graph.input_tensors(node)), None)
