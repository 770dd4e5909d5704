"""A trained network as a file for other programs, proved before it is there."""

import contextlib
import json
import os
import pathlib
import shutil

import numpy as np

from keras_norm.conversion import invalid_weights
from recipes.errors import RecipeError
from recipes.export import formats

METADATA_FILE = "export.json"
LONGEST = 400


def write_export(config, network, facts, check):
    """Writes a network in the format that the config asks for.

    Where it goes, `<workdir>/export/<format>`, nothing lies before it was read
    back and checked; an earlier export stays until then.

    Args:
        config: The config of the run.
        network: Functional model in float32 from a dict of `images` to a dict
            of outputs. The batch and what else it leaves open stays open in the
            file.
        facts: What export.json says of the network.
        check: `f(run)` compares what was written, where `run(images)` gives a
            dict of its outputs, and returns further facts.

    Returns:
        The facts that export.json holds, and `path`.

    Raises:
        RecipeError: for a package that is not installed, weights that are NaN
            or infinite, a network that the format cannot hold, outputs that are
            refused, or a disk that takes no file.
    """
    name = config.export_format
    chosen = formats.get_format(name)
    target = config.folder / "export" / name
    with _replacing(target) as folder, formats.quiet():
        _require_sound(network)
        path = os.fspath(folder / chosen.file)
        try:
            chosen.write(network, path)
            checks = check(chosen.load(path))
        except (OSError, RecipeError):
            raise
        except Exception as error:
            message = " ".join(str(error).split())[:LONGEST]
            raise RecipeError(
                f"--export_format={name} does not take {network.name}: "
                f"{type(error).__name__}: {message}"
            ) from error
        facts = {**_facts(name, chosen, network), **facts, **checks}
        facts["bytes"] = _size(folder)
        text = json.dumps(facts, indent=2)
        (folder / METADATA_FILE).write_text(f"{text}\n")
    return {**facts, "path": os.fspath(target)}


def _require_sound(network):
    faults = invalid_weights.find_invalid_weights(network)
    if faults:
        description = invalid_weights.describe_invalid_weights(faults)
        raise RecipeError(f"{network.name} cannot be exported: {description}")


def largest(differences):
    """The largest difference; a NaN is larger than every number."""
    return max(np.inf if np.isnan(each) else each for each in differences)


def require_finite(name, outputs):
    """Raises a `RecipeError` for NaN and infinity, which differ from nothing.

    Args:
        name: What the outputs are.
        outputs: NumPy array.
    """
    bad = outputs[~np.isfinite(outputs)]
    if bad.size:
        raise RecipeError(
            f"{name} on images of the run: {bad.size} of {outputs.size} values "
            f"are not finite, the first {bad[0]}: there is nothing to compare. "
            "Export an earlier checkpoint, or train with a lower learning rate."
        )


def _facts(name, chosen, network):
    (images,) = network.inputs
    colors = "RGB" if images.shape[-1] == 3 else "gray"
    return {
        "format": name,
        "file": chosen.file or ".",
        "input": formats.INPUT,
        "input_shape": [None, *images.shape[1:]],
        "dtype": "float32",
        "preprocessing": f"{colors} in [-1, 1], channels last",
    }


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
