"""Exports a classifier that maps images to logits."""

import keras
import numpy as np
import tensorflow as tf

from recipes.errors import RecipeError
from recipes.export import formats
from recipes.export import signature
from recipes.export import writer
from recipes.models import precision

OUTPUT = "logits"
# Differences are relative to the largest logit. The tolerance is ten times the
# change of the logits if the last bits of the images change, at least
# MIN_TOLERANCE and at most MAX_TOLERANCE. Measured: every norm in
# `tests/recipes` differs by up to 1e-6 with 1e-5 allowed; MobileNetV2 with FRN
# on 3x3 maps differs by 1.6e-4 with 1.4e-3 allowed.
MIN_TOLERANCE = 1e-5
MAX_TOLERANCE = 1e-2
ROUNDING_FACTOR = 10
LAST_BITS = 2.0**-22
BATCH_SIZES = (1, 3)
# Added to the width of the second image size, if sizes are unknown.
SIZE_INCREMENT = 32


def export_classifier(config, model, class_names):
    """Exports a classifier in float32.

    Args:
        config: Config of the run.
        model: Functional model from images in [-1, 1] to logits, with any dtype
            policy.
        class_names: Name of each logit.

    Returns:
        The content of export.json, and `path`.

    Raises:
        RecipeError: As `write_export`, or if the exported network and the Keras
            model give different logits for random images.
    """
    # Fails before the model is rebuilt if a package is missing.
    formats.get_format(config.export_format)
    network = _name_input_and_output(precision.rebuild_in_float32(model))
    num_classes = network.outputs[0].shape[-1]
    metadata = {
        "output": OUTPUT,
        "output_shape": [None, num_classes],
        "num_classes": num_classes,
        "class_names": list(class_names),
    }
    return writer.write_export(
        config,
        network,
        metadata,
        lambda run: _compare_logits(config, run, network, model),
    )


def describe_export(metadata):
    """Describes an export in one line."""
    policies = metadata["trained_in"]
    difference = metadata["difference_to_trained"]
    note = ""
    if policies != ["float32"]:
        relation = (
            "not comparable to"
            if difference is None
            else f"{difference:.1e} from"
        )
        note = f", {relation} the logits in {', '.join(policies)}"
    if difference is None:
        note += ", which are not finite"
    return (
        f"export: {metadata['path']}, {metadata['bytes'] / 1e6:,.1f} MB; "
        f"largest difference {metadata['largest_difference']:.1e} of the "
        f"largest logit, {metadata['allowed_difference']:.0e} allowed{note}"
    )


def _name_input_and_output(model):
    """Wraps a model so that its input and output have the exported names."""
    shape = model.inputs[0].shape[1:]
    images = keras.Input(shape, name=signature.INPUT, dtype="float32")
    return keras.Model(
        {signature.INPUT: images},
        {OUTPUT: model(images)},
        name=model.name,
    )


def _compare_logits(config, run, network, model):
    """Compares an export with its network and the trained model.

    Args:
        config: Config of the run.
        run: `f(images)` runs the exported network.
        network: The float32 network.
        model: The trained model.

    Returns:
        Dict of the largest differences on random images.

    Raises:
        RecipeError: If rounding does not explain the differences.
    """
    generator = np.random.default_rng(0)
    differences, to_trained, rounding = [], [], []
    # A GPU may multiply with fewer digits than float32 has.
    with tf.device("CPU:0"):
        for shape in _image_shapes(network, config.image_size):
            images = generator.uniform(-1.0, 1.0, shape)
            signs = generator.choice([-1.0, 1.0], shape)
            changed = (images * (1.0 + LAST_BITS * signs)).astype("float32")
            images = images.astype("float32")
            expected = _compute_logits(network, images)
            writer.require_finite(f"the logits of {network.name}", expected)
            rounding.append(
                _relative_difference(
                    _compute_logits(network, changed), expected
                )
            )
            differences.append(
                _relative_difference(run(images)[OUTPUT], expected)
            )
            trained = model(images, training=False).numpy()
            to_trained.append(_relative_difference(expected, trained))
    policies = precision.dtype_policies(model)
    to_trained = writer.largest(to_trained)
    checked = list(differences)
    if policies == ["float32"]:
        checked.append(to_trained)
    allowed = ROUNDING_FACTOR * writer.largest(rounding)
    allowed = min(max(MIN_TOLERANCE, allowed), MAX_TOLERANCE)
    if writer.largest(checked) > allowed:
        raise RecipeError(
            "the exported logits differ from the network's on random images by "
            f"{writer.largest(checked):.1e} of the largest logit, and "
            f"{allowed:.0e} is allowed. The export was deleted. Try another "
            "--export_format."
        )
    return {
        "largest_difference": writer.largest(differences),
        "allowed_difference": allowed,
        "trained_in": policies,
        # JSON has no infinity, to which logits in half precision may overflow.
        "difference_to_trained": to_trained
        if np.isfinite(to_trained)
        else None,
    }


def _compute_logits(network, images):
    outputs = network({signature.INPUT: images}, training=False)
    return outputs[OUTPUT].numpy()


def _image_shapes(network, image_size):
    """Returns shapes with two batch sizes, and two image sizes if unknown."""
    sizes = network.inputs[0].shape[1:]
    image = [image_size if size is None else size for size in sizes]
    shapes = [(batch_size, *image) for batch_size in BATCH_SIZES]
    if None in sizes:
        larger = [
            image_size + SIZE_INCREMENT * axis if size is None else size
            for axis, size in enumerate(sizes, start=1)
        ]
        shapes.append((BATCH_SIZES[-1], *larger))
    return shapes


def _relative_difference(actual, expected):
    if actual.shape != expected.shape:
        return np.inf
    largest = float(np.abs(expected).max()) or 1.0
    return float(np.abs(actual - expected).max()) / largest
