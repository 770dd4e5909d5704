"""The folder of a run: whose it is, and the config that it keeps."""

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import tempfile

from recipes import atomic_io
from recipes.config import setting
from recipes.config.base import Config
from recipes.errors import RecipeError
from recipes.run_dir import lock
from recipes.training import length

NAME = "config.json"
# Runs that a message lists.
MAX_LISTED = 8
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

    Workers that are not the chief get a folder that is gone afterwards. So is
    the workdir if it is new and nothing was written to it.

    Yields:
        The config, of the folder to write to.

    Raises:
        RecipeError: if it cannot be written, is in use, holds another run, or
            does not exist where `--mode` needs one that does.
    """
    if not workers.is_chief:
        with tempfile.TemporaryDirectory(prefix="worker") as folder:
            yield dataclasses.replace(config, workdir=folder)
        return
    require_run(config)
    check(config)
    with lock.held(config.folder, "run", "workdir"):
        check(config)  # It may have become another run's meanwhile.
        yield config


def require_run(config):
    """Checks that there is a run to evaluate or to export.

    Raises:
        RecipeError: naming the runs whose workdirs have similar names.
    """
    if config.trains or config.checkpoint not in ("last", "best"):
        return
    if not (config.folder / NAME).exists():
        raise RecipeError(
            f"--mode={config.mode}: {missing(config.folder)} Train first, or "
            "give the --workdir of a run."
        )


def missing(folder):
    """Says that a folder is not the workdir of a run, and which may be meant.

    Args:
        folder: Path of the folder.
    """
    return f"there is no run in {folder}.{similar(folder)}"


def similar(folder):
    """Names runs beside a folder, as a sentence to append; or nothing."""
    if not folder.parent.is_dir():
        return ""
    names = [
        path.name
        for path in sorted(folder.parent.iterdir())
        if (path / NAME).exists()
    ]
    near = difflib.get_close_matches(folder.name, names, 3, cutoff=0.5)
    if near:
        near = " or ".join(str(folder.with_name(name)) for name in near)
        return f" Did you mean {near}?"
    if not names:
        return ""
    more = len(names) - MAX_LISTED
    also = f" and {more} more" if more > 0 else ""
    listed = ", ".join(names[:MAX_LISTED])
    return f" {folder.parent} has the runs {listed}{also}."


def check(config):
    """Checks that a run may use its workdir; writes nothing.

    Raises:
        RecipeError: if it cannot be written, or holds another config.
    """
    there = config.folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    reason = None
    if not there.is_dir():
        reason = f"{there} is not a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = f"{there} is read-only for this user"
    if reason is not None:
        raise RecipeError(
            f"cannot write to the workdir {config.folder}: {reason}. "
            "Choose another --workdir."
        )
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
    path = pathlib.Path(workdir).expanduser() / NAME
    if not os.path.lexists(path):
        return {}
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"{path} is not a config: {error}. Choose another --workdir."
        ) from error
    if not setting.are_values(values, kind):
        raise RecipeError(
            f"{path} is not a config of this program. Choose another --workdir."
        )
    return values


def save(config):
    """Writes config.json, which makes the workdir that of this run."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    config.folder.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(config.folder / NAME, text)


def _require_same(kept, config):
    given = json.loads(json.dumps(config.to_dict()))
    # A setting that is newer than the run had its default then.
    kept = {**type(config)().to_dict(), **kept}
    differences = [
        f"{key} is {kept[key]!r} there and {given[key]!r} now"
        for key in given
        if key not in NOT_OF_THE_RUN and kept[key] != given[key]
    ]
    if not differences:
        return
    is_longer = len(differences) == 1 and length.is_raised(kept, given)
    if is_longer and length.extends(kept, given):
        return
    raise RecipeError(
        f"the workdir {config.folder} holds a run of another config: "
        f"{'; '.join(differences)}. "
        + (length.advice(config.folder, kept) if is_longer else "")
        + "Choose another --workdir."
    )
