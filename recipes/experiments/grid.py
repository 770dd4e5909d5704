"""The runs of a sweep: every combination of what is varied, each checked."""

import dataclasses
import hashlib
import itertools
import pathlib
import re
import shlex

from absl import flags

from recipes.classification.config import Config
from recipes.config import base as config_lib
from recipes.config import flags as recipe_flags
from recipes.errors import RecipeError
from recipes.experiments.aggregate import flag
from recipes.run_dir import run_dir

# What a sweep decides for each of its runs.
_OF_THE_SWEEP = ("workdir", "mode", "dry_run", "checkpoint", "export_format")
# In --vary, images a step and replica; becomes the global batch size.
REPLICA_BATCH = "replica_batch_size"
MAX_NAME = 120


@dataclasses.dataclass(frozen=True)
class Cell:
    """A run that a sweep wants.

    Attributes:
        name: Its folder below that of the sweep.
        varied: Dict of the settings that the sweep varies, as they were given.
        settings: Dict of all settings that were given; the rest are defaults.
        config: The `Config` of the run.
    """

    name: str
    varied: dict
    settings: dict
    config: Config

    @property
    def command(self):
        """The command that repeats the run, as it can be typed."""
        given = [flag(name, value) for name, value in self.settings.items()]
        return " ".join(["python recipes/imagenet.py", *given])


def parse_axis(text):
    """The alternatives of `--vary`, each a dict of settings.

    Args:
        text: Flags of `recipes/imagenet.py` and --replica_batch_size, as they
            are typed there, alternatives separated by `|`. One that begins
            without dashes begins with a value of the first one's first flag.

    Raises:
        RecipeError: for what is no flag, or no value of it.

    Example:

    >>> from recipes.experiments import grid
    >>> grid.parse_axis("--norm=frn | frn --activation=relu | rbn")
    [{'norm': 'frn'}, {'norm': 'frn', 'activation': 'relu'}, {'norm': 'rbn'}]
    """
    parts = [part.strip() for part in _split(text)]
    first = re.match(r"--\w+=", parts[0])
    alternatives = []
    for part in parts:
        if not part.startswith("--"):
            if not part or first is None:
                raise RecipeError(
                    "--vary takes flags of recipes/imagenet.py, alternatives "
                    "separated by |, such as '--norm=bn | frn' or "
                    f"'--seed=0 | 1'. Received: --vary={shlex.quote(text)}"
                )
            part = first[0] + part
        alternatives.append(_parse_flags(part, text))
    for i, alternative in enumerate(alternatives):
        if alternative in alternatives[:i]:
            raise RecipeError(
                f"--vary={shlex.quote(text)} has {parts[i]!r} twice."
            )
    return alternatives


def _split(text):
    """The parts between the `|` that stand outside of quotes."""
    parts, quote = [""], ""
    for character in text:
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        if character == "|" and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _parse_flags(part, text):
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, Config)
    flags.DEFINE_integer(REPLICA_BATCH, None, "", 1, flag_values=values)
    try:
        left = values(["--vary", *shlex.split(part)])[1:]
        if left:
            raise ValueError(f"unexpected argument {left[0]!r}")
        settings = recipe_flags.given_settings(values, Config)
    except (flags.Error, ValueError, RecipeError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"--vary={shlex.quote(text)}: {reason}") from error
    if values[REPLICA_BATCH].value is not None:
        settings[REPLICA_BATCH] = values[REPLICA_BATCH].value
    return settings


def make(folder, given, axes, num_devices=1, log_every_examples=None):
    """The cells of a sweep, the last axis varying fastest.

    Args:
        folder: Path of the sweep.
        given: Dict of the settings that all runs share.
        axes: List of lists of dicts of settings.
        num_devices: Replicas of a run where no setting says how many.
        log_every_examples: How many images a run trains on from a row of its
            records to the next, or None where `log_every_steps` decides.

    Raises:
        RecipeError: for settings that cannot be, or that are no fair
            comparison.
    """
    _check_axes(given, axes, log_every_examples)
    cells = {}
    for alternatives in itertools.product(*axes):
        varied = {k: v for part in alternatives for k, v in part.items()}
        settings = _settings(given, varied, num_devices, log_every_examples)
        name = _name(varied)
        settings["workdir"] = str(pathlib.Path(folder) / name)
        try:
            preset = config_lib.get_preset(Config, settings.get("preset"))
            config = config_lib.make_config(Config, settings, preset)
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from error
        if name in cells:
            raise RecipeError(
                f"two runs would be called {name}: what differs between them "
                "must differ in letters or digits."
            )
        cells[name] = Cell(name, varied, settings, config)
    _check_fair(list(cells.values()))
    return list(cells.values())


def check_workdirs(cells):
    """Checks that no workdir holds a run of another config; writes nothing.

    Raises:
        RecipeError: if one does, or cannot be written.
    """
    for cell in cells:
        try:
            run_dir.check_run_dir(cell.config)
        except RecipeError as error:
            # Here --out decides where a run's files go.
            message = str(error).replace("--workdir", "--out")
            raise RecipeError(message) from error


def _settings(given, varied, num_devices, log_every_examples):
    settings = {**given, **varied}
    preset = config_lib.get_preset(Config, settings.get("preset"))
    share = settings.pop(REPLICA_BATCH, None)
    if share is not None:
        known = {**preset, **settings}
        if known.get("strategy") == "tpu":
            raise RecipeError(
                f"--{REPLICA_BATCH} is not for --strategy=tpu, whose replicas "
                "are known to a run alone: give --global_batch_size."
            )
        num_replicas = (
            1
            if known.get("strategy") == "one_device"
            else known.get("num_replicas")
            or known.get("virtual_replicas")
            or num_devices
        )
        settings["global_batch_size"] = share * num_replicas
    if log_every_examples is not None:
        size = {**Config().to_dict(), **preset, **settings}["global_batch_size"]
        settings["log_every_steps"] = max(round(log_every_examples / size), 1)
    return settings


def _check_axes(given, axes, log_every_examples):
    names = [{name for part in axis for name in part} for axis in axes]
    for first, second in itertools.combinations(names, 2):
        if first & second:
            raise RecipeError(
                f"--{min(first & second)} is varied twice: write its "
                "alternatives into one --vary."
            )
    every = set(given).union(*names)
    if {REPLICA_BATCH, "global_batch_size"} <= every:
        raise RecipeError(
            "give either --global_batch_size or --vary=--replica_batch_size."
        )
    if log_every_examples is not None and "log_every_steps" in every:
        raise RecipeError(
            "give either --log_every_examples or --log_every_steps."
        )
    for name in _OF_THE_SWEEP:
        if name in every:
            raise RecipeError(
                f"--{name} is not for a sweep: it decides that for each run."
            )
    parts = [given, *itertools.chain(*axes)]
    if any(part.get("strategy") == "multi_worker" for part in parts):
        raise RecipeError(
            "a sweep runs on one machine: --strategy=multi_worker is not for it"
        )


def _check_fair(cells):
    """Runs of different batch sizes must see the same examples."""
    by_steps = [cell for cell in cells if cell.config.train_steps is not None]
    sizes = {cell.config.global_batch_size for cell in cells}
    if len(sizes) > 1 and by_steps:
        raise RecipeError(
            "runs of different batch sizes see the same examples only where "
            "the length is in epochs: give --train_epochs. "
            f"Received: train_steps={by_steps[0].config.train_steps}, "
            f"batch sizes {', '.join(map(str, sorted(sizes)))}"
        )


def _name(varied):
    """A folder name out of settings; the same whatever else is varied."""
    parts = []
    for name, value in varied.items():
        text = flag(name, value).removeprefix("--")
        parts.append(re.sub(r"[^\w.=+-]+", "_", text).strip("_"))
    name = "-".join(parts) or "run"
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9]}-{digest}"
