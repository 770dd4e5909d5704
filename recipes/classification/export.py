"""The export of a classifier: from images to logits."""

import keras
import numpy as np
import tensorflow as tf

from recipes.errors import RecipeError
from recipes.export import formats
from recipes.export import writer
from recipes.models import precision

OUTPUT = "logits"
# Differences are in parts of the largest logit. Allowed is rounding: ten times
# what the logits move when the images move by their last bit or two, or FLOOR,
# and in no network more than CEILING. Measured: `tests/recipes` on every norm
# 1e-6 at most, where 1e-5 is allowed; MobileNetV2 with FRN on 3x3 maps 1.6e-4,
# where 1.4e-3 is.
FLOOR = 1e-5
SHARE_OF_MOVES = 10
CEILING = 1e-2
LAST_BITS = 2.0**-22
BATCH_SIZES = (1, 3)
# How much larger the second size of image is, where sizes are free.
GROWTH = 32


def export_classifier(config, model, class_names):
    """Writes a classifier in float32, see `export.write`.

    Args:
        config: A `Config`.
        model: Functional model from images in [-1, 1] to logits, of any dtype
            policy.
        class_names: The name of each logit.

    Returns:
        The facts that export.json holds, and `path`.

    Raises:
        RecipeError: as `export.write`, and for other logits than those of the
            Keras model on random images.
    """
    # What the format needs is asked for before the network is made again.
    formats.get_format(config.export_format)
    network = _named(precision.rebuild_in_float32(model))
    num_classes = network.outputs[0].shape[-1]
    facts = {
        "output": OUTPUT,
        "output_shape": [None, num_classes],
        "num_classes": num_classes,
        "class_names": list(class_names),
    }
    return writer.write_export(
        config,
        network,
        facts,
        lambda run: _check(config, run, network, model),
    )


def describe_export(facts):
    """What was written, in a line."""
    trained, difference = facts["trained_in"], facts["difference_to_trained"]
    note = ""
    if trained != ["float32"]:
        far = (
            "not comparable to"
            if difference is None
            else f"{difference:.1e} from"
        )
        note = f", {far} the logits in {', '.join(trained)}"
    if difference is None:
        note += ", which are not finite"
    return (
        f"export: {facts['path']}, {facts['bytes'] / 1e6:,.1f} MB; largest "
        f"difference {facts['largest_difference']:.1e} of the largest logit, "
        f"{facts['allowed_difference']:.0e} allowed"
        f"{note}"
    )


def _named(model):
    """The model with the names of the formats around it."""
    shape = model.inputs[0].shape[1:]
    images = keras.Input(shape, name=formats.INPUT, dtype="float32")
    return keras.Model(
        {formats.INPUT: images},
        {OUTPUT: model(images)},
        name=model.name,
    )


def _check(config, run, network, model):
    """The largest differences of what was written, over random images.

    Raises:
        RecipeError: for more than rounding.
    """
    generator = np.random.default_rng(0)
    differences, to_trained, moves = [], [], []
    # A GPU may round products to fewer digits than float32 has.
    with tf.device("CPU:0"):
        for shape in _shapes(network, config.image_size):
            images = generator.uniform(-1.0, 1.0, shape)
            signs = generator.choice([-1.0, 1.0], shape)
            moved = (images * (1.0 + LAST_BITS * signs)).astype("float32")
            images = images.astype("float32")
            expected = _logits(network, images)
            writer.require_finite(f"the logits of {network.name}", expected)
            moves.append(_difference(_logits(network, moved), expected))
            differences.append(_difference(run(images)[OUTPUT], expected))
            trained = model(images, training=False).numpy()
            to_trained.append(_difference(expected, trained))
    policies = precision.dtype_policies(model)
    to_trained = writer.largest(to_trained)
    checked = list(differences)
    if policies == ["float32"]:
        checked.append(to_trained)
    allowed = min(max(FLOOR, SHARE_OF_MOVES * writer.largest(moves)), CEILING)
    if writer.largest(checked) > allowed:
        raise RecipeError(
            "the file gives other logits than the network, on random images: "
            f"difference {writer.largest(checked):.1e} of the largest "
            f"logit, and {allowed:.0e} is allowed. Nothing was kept."
        )
    return {
        "largest_difference": writer.largest(differences),
        "allowed_difference": allowed,
        "trained_in": policies,
        # JSON has no infinity; None where the trained network overflows.
        "difference_to_trained": to_trained
        if np.isfinite(to_trained)
        else None,
    }


def _logits(network, images):
    outputs = network({formats.INPUT: images}, training=False)
    return outputs[OUTPUT].numpy()


def _shapes(network, image_size):
    """Two batch sizes, and two sizes of image where they are free."""
    sizes = network.inputs[0].shape[1:]
    image = [image_size if size is None else size for size in sizes]
    shapes = [(batch_size, *image) for batch_size in BATCH_SIZES]
    if None in sizes:
        grown = [
            image_size + GROWTH * axis if size is None else size
            for axis, size in enumerate(sizes, start=1)
        ]
        shapes.append((BATCH_SIZES[-1], *grown))
    return shapes


def _difference(actual, expected):
    if actual.shape != expected.shape:
        return np.inf
    largest = float(np.abs(expected).max()) or 1.0
    return float(np.abs(actual - expected).max()) / largest
