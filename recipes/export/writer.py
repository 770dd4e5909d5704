"""Writes an exported network and verifies it before it is kept."""

import json
import os

import numpy as np

from keras_norm.conversion import invalid_weights
from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.errors import describe_disk_error
from recipes.errors import one_line
from recipes.export import formats
from recipes.export.signature import INPUT

METADATA_FILE = "export.json"
MAX_ERROR_CHARACTERS = 400


def write_export(config, network, metadata, check):
    """Writes a network to `<workdir>/export/<format>`.

    The folder appears only after the exported network was loaded and checked.
    Until then, an earlier export stays.

    Args:
        config: Config of the run, with `export_format` and `folder`.
        network: Functional float32 model from a dict with `images` to a dict of
            outputs. Unknown sizes stay unknown in the export.
        metadata: Dict to write to export.json.
        check: `f(run)` compares the export with the network and returns further
            metadata. `run(images)` returns a dict of outputs.

    Returns:
        The content of export.json, and `path`.

    Raises:
        RecipeError: If a package is missing, weights are not finite, the format
            does not support the network, the check fails, or the folder cannot
            be written.
    """
    name = config.export_format
    chosen = formats.get_format(name)
    target = config.folder / "export" / name
    try:
        with atomic_io.atomic_dir(target) as folder:
            _require_valid_weights(network)
            path = os.fspath(folder / chosen.file)
            with formats.without_converter_warnings():
                checks = _write_and_check(name, chosen, network, path, check)
            metadata = {
                **_common_metadata(name, chosen, network),
                **metadata,
                **checks,
                "bytes": _folder_size(folder),
            }
            text = json.dumps(metadata, indent=2)
            (folder / METADATA_FILE).write_text(f"{text}\n")
    except OSError as error:
        if describe_disk_error(error) is not None:
            raise
        raise RecipeError(f"{target} cannot be written: {error}") from error
    return {**metadata, "path": os.fspath(target)}


def largest(differences):
    """Returns the largest difference, or infinity if one is NaN."""
    return max(np.inf if np.isnan(each) else each for each in differences)


def require_finite(name, outputs):
    """Raises an error for outputs that cannot be compared.

    Args:
        name: Description of the outputs.
        outputs: NumPy array.

    Raises:
        RecipeError: If a value is NaN or infinite.
    """
    bad = outputs[~np.isfinite(outputs)]
    if bad.size:
        raise RecipeError(
            f"{name} for images of the run: {bad.size} of {outputs.size} "
            f"values are not finite, the first is {bad[0]}, so the export "
            "cannot be verified. Export an earlier checkpoint, or train with a "
            "lower learning rate."
        )


def _write_and_check(name, chosen, network, path, check):
    try:
        chosen.write(network, path)
        return check(chosen.load(path))
    except (OSError, RecipeError):
        raise
    except Exception as error:
        if describe_disk_error(error) is not None:
            raise
        # Each converter raises its own exceptions.
        message = one_line(error)[:MAX_ERROR_CHARACTERS]
        raise RecipeError(
            f"--export_format={name} does not support {network.name}: "
            f"{type(error).__name__}: {message}"
        ) from error


def _require_valid_weights(network):
    faults = invalid_weights.find_invalid_weights(network)
    if faults:
        description = invalid_weights.describe_invalid_weights(faults)
        raise RecipeError(f"{network.name} cannot be exported: {description}")


def _common_metadata(name, chosen, network):
    (images,) = network.inputs
    colors = "RGB" if images.shape[-1] == 3 else "gray"
    return {
        "format": name,
        "file": chosen.file or ".",
        "input": INPUT,
        "input_shape": [None, *images.shape[1:]],
        "dtype": "float32",
        "preprocessing": f"{colors} in [-1, 1], channels last",
    }


def _folder_size(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
