"""The workdir of a run: its config.json, exclusive use, and resuming."""

import contextlib
import dataclasses
import difflib
import json
import os
import pathlib
import re
import tempfile

from recipes import atomic_io
from recipes.config.base import get_preset
from recipes.config.base import make_config
from recipes.config.base import trains
from recipes.config.setting import MAY_CHANGE
from recipes.config.setting import MAY_EXTEND
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import are_settings
from recipes.config.setting import fields_by_resume_rule
from recipes.errors import RecipeError
from recipes.run_dir import lock

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoints"
_CHECKPOINT_NAME = re.compile(r"step_(\d{9})\.npz")
# Number of runs that an error message lists.
MAX_LISTED = 8


def resolve_config(config_class, settings):
    """Returns the config of a command.

    A command that names a workdir and changes nothing else but the length of
    training resumes the run in that workdir with its stored settings. So does a
    command that does not train: an evaluation, prediction or export is one of
    the run in the workdir.

    Args:
        config_class: The config class of the program.
        settings: Dict of the settings given as flags.

    Raises:
        RecipeError: if a value is illegal, or if such a command names a new
            workdir whose name is similar to that of a run.
    """
    workdir = settings.get("workdir")
    changeable = fields_by_resume_rule(
        config_class, MAY_CHANGE, MAY_EXTEND, PER_COMMAND
    )
    resumes = set(settings) <= set(changeable)
    uses_run = "preset" not in settings and not trains(settings.get("mode"))
    if workdir is not None and (resumes or uses_run):
        stored = stored_settings(workdir, config_class)
        if "strategy" in settings:
            # The devices of one strategy are not those of another.
            for name in ("num_replicas", "virtual_replicas"):
                stored.pop(name, None)
        config = make_config(config_class, settings, stored)
        if not stored and config.trains:
            _require_unlike_runs(config.folder)
        return config
    preset = get_preset(config_class, settings.get("preset"))
    return make_config(config_class, settings, preset)


def read_config(workdir, config_classes):
    """Reads the config.json of a run of any program.

    Files written before the program was stored in them are recognized by their
    settings.

    Args:
        workdir: Path of the folder.
        config_classes: Config classes of the programs that may have written it.

    Returns:
        `(config_class, settings)`: the class of the program and a dict of the
        stored settings. Settings that are newer than the run are missing.

    Raises:
        RecipeError: if the file does not exist or is not such a config.
    """
    path = pathlib.Path(workdir).expanduser() / CONFIG_FILE
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RecipeError(
            f"{path.parent} is not the workdir of a run: it has no "
            f"{CONFIG_FILE}."
        ) from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path} is not a config: {error}.") from error
    program = None
    if isinstance(settings, dict):
        program = settings.pop("program", None)
    for config_class in config_classes:
        is_its_program = program in (None, config_class.PROGRAM)
        if is_its_program and are_settings(settings, config_class):
            return config_class, settings
    programs = " or ".join(f"recipes/{c.PROGRAM}.py" for c in config_classes)
    raise RecipeError(f"{path} is not a config of {programs}.")


def stored_settings(workdir, config_class):
    """Returns the settings of the run in a workdir; empty if there is none.

    Args:
        workdir: Path of the folder.
        config_class: The config class of the program.

    Raises:
        RecipeError: if there is a config.json that is not such a config.
    """
    path = pathlib.Path(workdir).expanduser() / CONFIG_FILE
    if not os.path.lexists(path):
        return {}
    try:
        return read_config(workdir, [config_class])[1]
    except RecipeError as error:
        raise RecipeError(f"{error} Choose another --workdir.") from error


def write_config(config):
    """Writes config.json, which makes the folder the workdir of this run."""
    content = {"program": config.PROGRAM, **config.to_dict()}
    text = json.dumps(content, indent=2) + "\n"
    config.folder.mkdir(parents=True, exist_ok=True)
    atomic_io.write_text(config.folder / CONFIG_FILE, text)


@contextlib.contextmanager
def open_run_dir(config, is_chief=True):
    """Reserves the workdir for this process.

    Workers other than the chief write to a temporary folder. A new workdir is
    removed again if nothing was written to it.

    Args:
        config: The config of the run.
        is_chief: Whether this worker writes the files of the run.

    Yields:
        The config with the workdir to write to.

    Raises:
        RecipeError: if the workdir cannot be written, is in use, holds another
            run, or holds no run although `--mode` needs one.
    """
    if not is_chief:
        with tempfile.TemporaryDirectory(prefix="worker") as folder:
            yield dataclasses.replace(config, workdir=folder)
        return
    require_run(config)
    check_run_dir(config)
    with lock.acquire_lock(config.folder, "run", "workdir"):
        # Another process may have started a run in it before the lock was ours.
        check_run_dir(config)
        yield config


def require_run(config):
    """Checks that there is a run to evaluate, export or predict with.

    Raises:
        RecipeError: if there is none. The message names similar workdirs.
    """
    if config.trains or config.checkpoint not in ("last", "best"):
        return
    if not (config.folder / CONFIG_FILE).exists():
        raise RecipeError(
            f"--mode={config.mode}: {describe_missing_run(config.folder)} "
            "Train first, or give the --workdir of a run."
        )


def describe_missing_run(folder):
    """Returns a sentence: the folder is not a workdir, and what may be meant.

    Args:
        folder: Path of the folder.
    """
    return f"there is no run in {folder}.{suggest_runs(folder)}"


def _require_unlike_runs(folder):
    if _similar_runs(folder):
        raise RecipeError(
            f"{describe_missing_run(folder)} Without a --dataset or --preset, "
            "--workdir resumes a run."
        )


def suggest_runs(folder):
    """Returns a sentence that names the runs beside a folder, or nothing."""
    near, names = _similar_runs(folder), _runs_beside(folder)
    if near:
        near = " or ".join(str(folder.with_name(name)) for name in near)
        return f" Did you mean {near}?"
    if not names:
        return ""
    more = len(names) - MAX_LISTED
    also = f" and {more} more" if more > 0 else ""
    listed = ", ".join(names[:MAX_LISTED])
    return f" {folder.parent} has the runs {listed}{also}."


def _similar_runs(folder):
    return difflib.get_close_matches(
        folder.name, _runs_beside(folder), 3, cutoff=0.5
    )


def _runs_beside(folder):
    """Returns the names of the workdirs in the parent of a folder."""
    if not folder.parent.is_dir():
        return []
    paths = sorted(folder.parent.iterdir())
    return [path.name for path in paths if (path / CONFIG_FILE).exists()]


def check_run_dir(config):
    """Checks that a run may use its workdir; writes nothing.

    Raises:
        RecipeError: if the workdir cannot be written or holds another config.
    """
    existing = config.folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    reason = None
    if not existing.is_dir():
        reason = f"{existing} is not a folder"
    elif not os.access(existing, os.W_OK | os.X_OK):
        reason = f"{existing} is read-only for this user"
    if reason is not None:
        raise RecipeError(
            f"cannot write to the workdir {config.folder}: {reason}. "
            "Choose another --workdir."
        )
    stored = stored_settings(config.folder, type(config))
    if stored:
        _require_same_run(stored, config)


def _require_same_run(stored, config):
    given = json.loads(json.dumps(config.to_dict()))
    # A setting that is newer than the run had its default value then.
    stored = {**type(config)().to_dict(), **stored}
    changeable = fields_by_resume_rule(type(config), MAY_CHANGE, PER_COMMAND)
    differences = [
        f"{name} is {stored[name]!r} there and {given[name]!r} now"
        for name in given
        if name not in changeable and stored[name] != given[name]
    ]
    if not differences:
        return
    extends = len(differences) == 1 and extends_training(
        type(config), stored, given
    )
    # Only a constant schedule has the same learning rates in a longer run.
    if extends and stored["schedule"] == "constant":
        return
    advice = ""
    if extends:
        advice = (
            "A longer run has the same learning rates only with "
            f"--schedule=constant, not with {stored['schedule']}."
            f"{advise_to_start_from_model(config.folder)} "
        )
    raise RecipeError(
        f"the workdir {config.folder} holds a run of another config: "
        f"{'; '.join(differences)}. {advice}Choose another --workdir."
    )


def extends_training(config_class, stored, given):
    """Returns True if the command trains longer than the stored run.

    Args:
        config_class: The config class of the program.
        stored: Dict of the settings of the run.
        given: Dict of the settings of the command.
    """
    changed = [
        name
        for name in fields_by_resume_rule(config_class, MAY_EXTEND)
        if stored[name] != given[name]
    ]
    if len(changed) != 1:
        return False
    before, now = stored[changed[0]], given[changed[0]]
    return None not in (before, now) and now > before


def advise_to_start_from_model(folder):
    """Returns a sentence on training a finished run's model further."""
    model = folder / "model.keras"
    if not model.exists():
        return ""
    return (
        f" To train further, start another run from its model: "
        f"--init_model={model} --workdir=NEW_FOLDER."
    )


def checkpoint_path(workdir, step):
    """Returns the path of the checkpoint of a step."""
    return workdir / CHECKPOINT_FOLDER / f"step_{step:09d}.npz"


def checkpoint_paths(workdir):
    """Returns the paths of the checkpoints in a workdir, newest first."""
    return sorted(
        (
            path
            for path in (workdir / CHECKPOINT_FOLDER).glob("*")
            if _CHECKPOINT_NAME.fullmatch(path.name)
        ),
        reverse=True,
    )


def describe_resumption(workdir, trains=True):
    """Returns a clause: what the same command does after a run has stopped.

    Args:
        workdir: Path of the run.
        trains: Whether the command trains.
    """
    if not trains:
        return "the same command starts again"
    paths = checkpoint_paths(workdir)
    if paths:
        return f"the same command resumes from {paths[0]}"
    return "no checkpoint was saved yet, the same command starts anew"


def describe_newest_checkpoint(workdir):
    """Returns a sentence that names the newest checkpoint, or nothing."""
    paths = checkpoint_paths(workdir)
    return f" The newest checkpoint is {paths[0]}." if paths else ""
