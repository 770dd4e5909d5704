"""A trained network as a file for other programs, proved before it is there."""

import contextlib
import json
import os
import pathlib
import shutil

import keras
import numpy as np
import tensorflow as tf

from recipes import export_formats
from recipes import float32
from recipes.errors import RecipeError

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
FACTS = "export.json"
LONGEST = 400


def write(config, model):
    """Writes the network in float32, in the format that the config asks for.

    Where it goes, `<workdir>/export/<format>`, nothing lies before it was read
    back and gave the logits of the Keras model on random images; an earlier
    export stays until then.

    Args:
        config: A `Config`.
        model: Functional model from images in [-1, 1] to logits, of any dtype
            policy. The batch and what else it leaves open stays open in the
            file.

    Returns:
        The facts that export.json holds, and `path`.

    Raises:
        RecipeError: for a package that is not installed, a network that the
            format cannot hold, other logits, or a disk that takes no file.
    """
    name = config.export_format
    chosen = export_formats.get(name)
    network = _named(float32.rebuilt(model))
    target = config.folder / "export" / name
    with _replacing(target) as folder, export_formats.quiet():
        path = os.fspath(folder / chosen.file)
        try:
            chosen.write(network, path)
            checks = _check(config, chosen.load(path), network, model)
        except (OSError, RecipeError):
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:LONGEST]
            raise RecipeError(
                f"--export_format={name} does not take {network.name}: "
                f"{type(error).__name__}: {message}"
            ) from error
        facts = {**_facts(name, chosen, network), **checks}
        facts["bytes"] = _size(folder)
        text = json.dumps(facts, indent=2)
        (folder / FACTS).write_text(f"{text}\n")
    return {**facts, "path": os.fspath(target)}


def describe(facts):
    """What was written, in a line."""
    trained = facts["trained_in"]
    note = (
        ""
        if trained == ["float32"]
        else f", {facts['difference_to_trained']:.1e} from the logits in "
        f"{', '.join(trained)}"
    )
    return (
        f"export: {facts['path']}, {facts['bytes'] / 1e6:,.1f} MB; largest "
        f"difference {facts['largest_difference']:.1e} of the largest logit, "
        f"{facts['allowed_difference']:.0e} allowed"
        f"{note}"
    )


def _named(model):
    """The model with the names of the formats around it."""
    shape = model.inputs[0].shape[1:]
    images = keras.Input(shape, name=export_formats.INPUT, dtype="float32")
    return keras.Model(
        {export_formats.INPUT: images},
        {export_formats.OUTPUT: model(images)},
        name=model.name,
    )


def _facts(name, chosen, network):
    num_classes = network.outputs[0].shape[-1]
    colors = "RGB" if network.inputs[0].shape[-1] == 3 else "gray"
    return {
        "format": name,
        "file": chosen.file or ".",
        "input": export_formats.INPUT,
        "input_shape": [None, *network.inputs[0].shape[1:]],
        "output": export_formats.OUTPUT,
        "output_shape": [None, num_classes],
        "dtype": "float32",
        "num_classes": num_classes,
        "preprocessing": f"{colors} in [-1, 1], channels last",
    }


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
            moves.append(_difference(_logits(network, moved), expected))
            differences.append(_difference(run(images), expected))
            trained = model(images, training=False).numpy()
            to_trained.append(_difference(expected, trained))
    policies = float32.policies(model)
    checked = list(differences)
    if policies == ["float32"]:
        checked += to_trained
    allowed = min(max(FLOOR, SHARE_OF_MOVES * max(moves)), CEILING)
    # A NaN is not within anything.
    if not all(difference <= allowed for difference in checked):
        raise RecipeError(
            "the file gives other logits than the network, on random images: "
            f"difference {max(checked, key=_nan_first):.1e} of the largest "
            f"logit, and {allowed:.0e} is allowed. Nothing was kept."
        )
    return {
        "largest_difference": max(differences),
        "allowed_difference": allowed,
        "trained_in": policies,
        "difference_to_trained": max(to_trained),
    }


def _logits(network, images):
    outputs = network({export_formats.INPUT: images}, training=False)
    return outputs[export_formats.OUTPUT].numpy()


def _nan_first(number):
    return np.inf if np.isnan(number) else number


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


def _size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def _replacing(target):
    """A folder beside the target that takes its place if all goes well."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    former = target.with_name(f".{target.name}.former")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if former.exists() and not target.exists():
            former.rename(target)
        _remove(unfinished)
        unfinished.mkdir()
        yield unfinished
        _remove(former)
        if target.exists():
            target.rename(former)
        unfinished.rename(target)
        _remove(former)
    except OSError as error:
        raise RecipeError(f"{target} cannot be written: {error}") from error
    finally:
        _remove(unfinished)


def _remove(folder):
    if pathlib.Path(folder).exists():
        shutil.rmtree(folder)
