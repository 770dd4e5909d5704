"""The folder of a run: whose it is, and the config that it keeps."""

import dataclasses
import json
import pathlib
import tempfile

from recipes.config import Config
from recipes.errors import RecipeError

# What a rerun in the same workdir may change.
NOT_OF_THE_RUN = ("workdir", "mode", "log_every_steps", "data_dir")


def check(config):
    """Makes the workdir, unless it is that of another run.

    Raises:
        RecipeError: if it cannot be written, or holds another config.
    """
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.folder):
            pass
    except OSError as error:
        raise RecipeError(
            f"cannot write to the workdir {config.folder}: {error.strerror}. "
            "Choose another --workdir."
        ) from error
    kept = stored(config.folder)
    if kept:
        _require_same(kept, config)


def stored(workdir):
    """The field values of the run in a workdir; empty if there is none.

    Raises:
        RecipeError: if there is a config.json that is no config.
    """
    path = pathlib.Path(workdir).expanduser() / "config.json"
    try:
        values = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{path} is not a config: {error}. Choose another --workdir."
        ) from error
    fields = {field.name for field in dataclasses.fields(Config)}
    if not isinstance(values, dict) or set(values) - fields:
        raise RecipeError(
            f"{path} is not a config of this program. Choose another --workdir."
        )
    return values


def save(config):
    """Writes config.json, which makes the workdir that of this run."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (config.folder / "config.json").write_text(text)


def _require_same(kept, config):
    given = json.loads(json.dumps(config.to_dict()))
    differences = [
        f"{key} is {kept.get(key)!r} there and {given[key]!r} now"
        for key in given
        if key not in NOT_OF_THE_RUN and kept.get(key) != given[key]
    ]
    if differences:
        raise RecipeError(
            f"the workdir {config.folder} holds a run of another config: "
            f"{'; '.join(differences)}. Choose another --workdir."
        )
