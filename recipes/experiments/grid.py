"""The runs of a sweep: every combination of the varied settings, checked."""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import shlex

from absl import flags

import keras_norm_cli
from recipes.config import base as config_lib
from recipes.config import flags as recipe_flags
from recipes.config.base import RunConfig
from recipes.config.setting import PER_COMMAND
from recipes.config.setting import fields_by_resume_rule
from recipes.errors import RecipeError
from recipes.errors import one_line
from recipes.experiments.programs import Program
from recipes.run_dir import run_dir
from recipes.training import command_line

# In --vary: examples per step and replica. Becomes the global batch size.
REPLICA_BATCH = "replica_batch_size"
MAX_NAME_LENGTH = 120


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        name: Name of its workdir in the sweep's folder.
        varied: Dict of the varied settings, as they were given.
        settings: Dict of all given settings; the others have their defaults.
        config: Config of the run.
        program: The `Program` that runs it.
    """

    name: str
    varied: dict
    settings: dict
    config: RunConfig
    program: Program

    @property
    def command(self):
        """The shell command that repeats the run."""
        given = [format_flag(*setting) for setting in self.settings.items()]
        return " ".join([f"python recipes/{self.program.name}.py", *given])


def parse_axis(text, program):
    """Parses a value of `--vary` into a list of dicts of settings.

    Args:
        text: Alternatives separated by `|`, each with flags of the program or
            `--replica_batch_size`. An alternative without leading dashes
            begins with a value of the first alternative's first flag.
        program: The `Program`.

    Raises:
        RecipeError: for an unknown flag or an invalid value.

    Example:

    >>> from recipes.experiments import grid
    >>> from recipes.experiments.programs import PROGRAMS
    >>> grid.parse_axis("--norm=frn | frn --xla", PROGRAMS["imagenet"])
    [{'norm': 'frn'}, {'norm': 'frn', 'xla': True}]
    """
    # A bar inside quotes is part of a value.
    bars = re.compile(r"""('[^']*'|"[^"]*")|\|""")
    parts = bars.sub(lambda match: match[1] or "\0", text).split("\0")
    first = re.match(r"\s*(--\w+=)", parts[0])
    alternatives = []
    for part in map(str.strip, parts):
        if not part or not (part.startswith("--") or first):
            raise RecipeError(
                "--vary takes flags with alternatives separated by |, such as "
                "'--norm=bn | frn' or '--seed=0 | 1'. "
                f"Received: --vary={shlex.quote(text)}"
            )
        if not part.startswith("--"):
            part = first[1] + part
        settings = _parse_flags(part, text, program)
        if settings in alternatives:
            raise RecipeError(
                f"--vary={shlex.quote(text)} has {part!r} twice. Remove one."
            )
        alternatives.append(settings)
    return alternatives


def _parse_flags(part, text, program):
    values = flags.FlagValues()
    recipe_flags.define_setting_flags(values, program.config)
    flags.DEFINE_integer(REPLICA_BATCH, None, "", 1, flag_values=values)
    try:
        rest = values(["--vary", *shlex.split(part)])[1:]
        if rest:
            raise ValueError(f"unexpected argument {rest[0]!r}")
        settings = recipe_flags.given_settings(values, program.config)
    except (flags.Error, ValueError, RecipeError) as error:
        reason = one_line(error)
        raise RecipeError(f"--vary={shlex.quote(text)}: {reason}") from error
    if values[REPLICA_BATCH].value is not None:
        settings[REPLICA_BATCH] = values[REPLICA_BATCH].value
    return settings


def make_cells(
    program, folder, given, axes, num_devices=1, log_every_examples=None
):
    """Makes the cells of a grid; the last axis varies fastest.

    Args:
        program: The `Program`.
        folder: Path of the sweep.
        given: Dict of the settings shared by all runs.
        axes: List with the result of `parse_axis` for each `--vary`.
        num_devices: Number of replicas where no setting defines it.
        log_every_examples: Number of training examples between two metrics
            entries; None leaves it to `log_every_steps`.

    Raises:
        RecipeError: for invalid settings, or for runs that see different
            numbers of examples.
    """
    mistakes = _find_mistakes(program.config, given, axes, log_every_examples)
    for mistake in mistakes:
        raise RecipeError(mistake)
    cells = {}
    for alternatives in itertools.product(*axes):
        varied = {k: v for part in alternatives for k, v in part.items()}
        name = _make_name(varied)
        if name in cells:
            raise RecipeError(
                f"two runs would have the workdir {name}: the sweep cannot "
                "tell them apart. Change one of the values."
            )
        settings = {**given, **varied}
        try:
            preset = config_lib.get_preset(
                program.config, settings.get("preset")
            )
            known = {**program.config().to_dict(), **preset, **settings}
            size = known["global_batch_size"]
            if REPLICA_BATCH in settings:
                size = _count_replicas(known, num_devices)
                size *= settings.pop(REPLICA_BATCH)
                settings["global_batch_size"] = size
            if log_every_examples is not None:
                num_steps = max(round(log_every_examples / size), 1)
                settings["log_every_steps"] = num_steps
            settings["workdir"] = str(pathlib.Path(folder) / name)
            config = config_lib.make_config(program.config, settings, preset)
        except RecipeError as error:
            raise RecipeError(f"{name}: {error}") from error
        cells[name] = Cell(name, varied, settings, config, program)
    cells = list(cells.values())
    _check_lengths([cell.config for cell in cells])
    return cells


def check_names(cells):
    """Checks the names of datasets and models, as each run does when it starts.

    Loads TensorFlow if they are not names of the recipes.

    Raises:
        RecipeError: naming the run.
    """
    command_line.configure_libraries()
    with keras_norm_cli.quiet_start():
        for cell in cells:
            try:
                cell.config.check_names()
            except RecipeError as error:
                raise RecipeError(f"{cell.name}: {error}") from error


def check_workdirs(cells):
    """Checks that every workdir is writable and holds no other run.

    Raises:
        RecipeError: naming the workdir and the settings that differ.
    """
    for cell in cells:
        try:
            run_dir.check_run_dir(cell.config)
        except RecipeError as error:
            # A sweep has --out instead of --workdir.
            message = str(error).replace("--workdir", "--out")
            raise RecipeError(message) from error


def _count_replicas(settings, num_devices):
    if settings["strategy"] == "tpu":
        raise RecipeError(
            f"--{REPLICA_BATCH} does not support --strategy=tpu, where only "
            "the run knows its number of replicas. Set --global_batch_size."
        )
    if settings["strategy"] == "one_device":
        return 1
    num_replicas = settings["num_replicas"] or settings["virtual_replicas"]
    return num_replicas or num_devices


def _find_mistakes(config_class, given, axes, log_every_examples):
    names = [{name for part in axis for name in part} for axis in axes]
    every = set(given).union(*names)
    for first, second in itertools.combinations(names, 2):
        for name in first & second:
            yield (
                f"--{name} is varied twice. Put all of its alternatives into "
                "one --vary."
            )
    if {REPLICA_BATCH, "global_batch_size"} <= every:
        yield f"set either --global_batch_size or --vary=--{REPLICA_BATCH}."
    if log_every_examples is not None and "log_every_steps" in every:
        yield "set either --log_every_examples or --log_every_steps."
    for name in every.intersection(
        fields_by_resume_rule(config_class, PER_COMMAND)
    ):
        yield f"--{name} cannot be set: the sweep chooses it for each run."
    for part in [given, *itertools.chain(*axes)]:
        if part.get("strategy") == "multi_worker":
            yield (
                "--strategy=multi_worker is not supported: a sweep runs on one "
                "machine."
            )


def _check_lengths(configs):
    sizes = sorted({config.global_batch_size for config in configs})
    steps = [config.train_steps for config in configs if config.train_steps]
    if len(sizes) > 1 and steps:
        raise RecipeError(
            "runs of different batch sizes see different numbers of examples "
            "if their length is in steps: set --train_epochs. Received: "
            f"train_steps={steps[0]}, batch sizes {', '.join(map(str, sizes))}"
        )


def _make_name(varied):
    """Makes a folder name that depends on a run's own settings alone."""
    parts = []
    for setting in varied.items():
        text = format_flag(*setting).removeprefix("--")
        parts.append(re.sub(r"[^\w.=+-]+", "_", text).strip("_"))
    name = "-".join(parts) or "run"
    if len(name) <= MAX_NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - 9]}-{digest}"


def format_flag(name, value):
    """Formats a setting as it is typed in a shell."""
    name, equals, value = format_argument(name, value).partition("=")
    return f"{name}{equals}{shlex.quote(value) if equals else value}"


def format_argument(name, value):
    """Formats a setting as a command-line argument."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if value is None:
        value = "none"
    elif isinstance(value, dict):
        value = json.dumps(value)
    elif isinstance(value, float):
        value = f"{value!r}".removesuffix(".0")
    return f"--{name}={value}"
