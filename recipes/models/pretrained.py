"""A network to start from: a saved model, converted if asked, with our head."""

import keras

import keras_norm
from keras_norm import variables
from keras_norm.conversion import graph
from keras_norm.saving import load as load_lib
from recipes.errors import RecipeError
from recipes.models import classifiers
from recipes.models import precision as precision_lib

HEAD = "logits"


def load_classifier(
    path, norm, image_shape, num_classes, precision, needs_head=False
):
    """A network from images to logits, out of a saved classifier or backbone.

    Softmax and other activations at the end go. A Dense layer of `num_classes`
    units keeps its weights; any other head gives way to a fresh Dense layer,
    after global pooling where there is none.

    Args:
        path: Path of a `.keras` or legacy HDF5 file.
        norm: A `keras_norm.Norm` to convert batch normalization to, or None.
        image_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        precision: Name of the dtype policy that the run asks for.
        needs_head: Whether a fresh head will not do.

    Returns:
        `(model, notes)`: the network, and sentences on what became of the file.

    Raises:
        RecipeError: for a file that cannot be read, converted, or fed.
    """
    model, notes = read_model(path, norm, precision)
    _check(path, model, image_shape)
    num_outputs = model.outputs[0].shape[-1]
    model, kept, note = _with_head(model, num_classes)
    if needs_head and not kept:
        raise RecipeError(
            f"{path} gives {num_outputs} values an image, and this dataset has "
            f"{num_classes} classes."
        )
    if not model.trainable_variables:
        raise RecipeError(
            f"--init_model={path}: every weight is frozen (trainable=False), "
            "nothing would be trained. Set trainable before saving it."
        )
    return model, [*notes, note]


def read_model(path, norm, precision):
    """A model as it is in a file, converted if asked.

    Args:
        path: Path of a `.keras` or legacy HDF5 file.
        norm: A `keras_norm.Norm` to convert batch normalization to, or None.
        precision: Name of the dtype policy that the run asks for.

    Returns:
        `(model, notes)`: the model, and sentences on what became of the file.

    Raises:
        RecipeError: for a file that cannot be read or converted, or is of
            another dtype policy.
    """
    try:
        model, notes = load_lib.load_model(path)
        if norm is not None:
            model, report = keras_norm.convert(model, norm)
            notes = [*notes, report.summary(), *report.notes]
    except keras_norm.ConversionError as error:
        text = str(error)
        if "unsafe" in text:
            text = (
                "it holds Python code (a Lambda layer, for instance), which "
                "recipes never run. Build the model with registered layers in "
                "the place of that code, copy the weights, and save it again."
            )
        raise RecipeError(f"--init_model={path}: {text}") from error
    policies = precision_lib.dtype_policies(model)
    if policies and precision not in policies:
        raise RecipeError(
            f"--precision={precision}, but --init_model={path} was saved in "
            f"{', '.join(policies)}: ask for that."
        )
    return model, notes


def _check(path, model, image_shape):
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise RecipeError(
            f"--init_model={path} must have one input and one output, and has "
            f"{len(model.inputs)} and {len(model.outputs)}."
        )
    wanted = model.inputs[0].shape[1:]
    fits = len(wanted) == 3 and all(
        size in (None, ours)
        for size, ours in zip(wanted, image_shape, strict=True)
    )
    if not fits:
        raise RecipeError(
            f"--init_model={path} takes images of {wanted}, and this dataset "
            f"gives {tuple(image_shape)}: change --image_size or the dataset."
        )


def _with_head(model, num_classes):
    """The model up to `num_classes` logits, and what became of its head.

    `(model, whether the head was kept, a sentence on it)`.
    """
    features = model.outputs[0]
    last, inputs = _made_by(features)
    while isinstance(last, (keras.layers.Activation, keras.layers.Softmax)):
        features = inputs
        last, inputs = _made_by(features)
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
    what = "keeps its head" if kept else "gets a fresh head"
    network = keras.Model(model.inputs, logits, name=model.name)
    return (
        classifiers.with_float32_logits(network),
        kept,
        f"{model.name} {what} of {num_classes} logits.",
    )


def _made_by(tensor):
    """The layer that gives a tensor, and the first tensor that it takes."""
    node, _ = graph.producing_node(tensor)
    return graph.operation(node), next(iter(graph.input_tensors(node)), None)
