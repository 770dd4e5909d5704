"""The folder of a run: whose it is, and the config that it keeps."""

import contextlib
import dataclasses
import json
import pathlib
import tempfile

from recipes import lock
from recipes import whole
from recipes.config import Config
from recipes.errors import RecipeError

# What a rerun in the same workdir may change.
NOT_OF_THE_RUN = (
    "workdir",
    "mode",
    "images",
    "dry_run",
    "checkpoint",
    "export_format",
    "log_every_steps",
    "save_every_steps",
    "keep",
    "best_metric",
    "profile_steps",
    "data_dir",
    "eval_batch_size",
    "use_ema",
    "eval_train",
    "score_threshold",
    "nms_threshold",
    "max_detections",
    "strategy",
    "num_replicas",
    "virtual_replicas",
    "steps_per_execution",
)


@contextlib.contextmanager
def opened(config, workers):
    """Inside, the workdir is this run's alone.

    Workers that are not the chief get a folder that is gone afterwards.

    Yields:
        The config, of the folder to write to.

    Raises:
        RecipeError: if it cannot be written, is in use, or holds another run.
    """
    if not workers.is_chief:
        with tempfile.TemporaryDirectory(prefix="worker") as folder:
            yield dataclasses.replace(config, workdir=folder)
        return
    check(config)
    with lock.held(config.folder, "run", "workdir"):
        yield config


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
    kept = stored(config.folder, type(config))
    if kept:
        _require_same(kept, config)


def stored(workdir, kind=Config):
    """The field values of the run in a workdir; empty if there is none.

    Args:
        workdir: Path of the folder.
        kind: The class of the config that it should hold.

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
    fields = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(values, dict) or set(values) - fields:
        raise RecipeError(
            f"{path} is not a config of this program. Choose another --workdir."
        )
    return values


def save(config):
    """Writes config.json, which makes the workdir that of this run."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    whole.write_text(config.folder / "config.json", text)


def _require_same(kept, config):
    given = json.loads(json.dumps(config.to_dict()))
    # A setting that is newer than the run had its default then.
    kept = {**type(config)().to_dict(), **kept}
    differences = [
        f"{key} is {kept[key]!r} there and {given[key]!r} now"
        for key in given
        if key not in NOT_OF_THE_RUN and kept[key] != given[key]
    ]
    if differences:
        raise RecipeError(
            f"the workdir {config.folder} holds a run of another config: "
            f"{'; '.join(differences)}. Choose another --workdir."
        )
