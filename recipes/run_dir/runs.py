"""Runs as their workdirs tell them, without TensorFlow."""

import dataclasses
import json
import os
import pathlib
import statistics

from recipes.config import setting
from recipes.config.base import Config
from recipes.errors import RecipeError
from recipes.run_dir import run_dir as workdirs
from recipes.run_dir import run_files


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, ended or not.

    Attributes:
        folder: Path of its workdir.
        config: Dict of its settings; those that are newer than the run have
            their defaults.
        rows: List of what it wrote, in the order of steps: dicts of `step`,
            `epoch` and `split/metric` values, None where one was not finite.
        summary: Dict of summary.json; empty where there is none yet.
        faults: Sentences on what of its files is damaged and was left out.
        config_class: The config class of the program that ran it.
    """

    folder: pathlib.Path
    config: dict
    rows: list
    summary: dict
    faults: tuple = ()
    config_class: type = Config

    def series(self, key):
        """Epochs and values of the rows that hold a value of the key."""
        rows = [row for row in self.rows if row.get(key) is not None]
        return [row["epoch"] for row in rows], [row[key] for row in rows]

    def final(self, key):
        """The newest value of the key; None without one, or not finite."""
        values = [row[key] for row in self.rows if key in row]
        return values[-1] if values else None

    def best(self, key):
        """The highest value of the key, or None."""
        return max(self.series(key)[1], default=None)

    @property
    def epoch(self):
        """How far its rows go, in epochs."""
        return self.rows[-1]["epoch"] if self.rows else 0

    @property
    def is_finished(self):
        """Whether it was trained to its end.

        An evaluation of a run that was stopped writes a summary as well, but
        without the time that training took. And a run that ended, lost its
        newest save and is trained again has a summary beyond its rows.
        """
        if "seconds" not in self.summary or not self.rows:
            return False
        end = self.summary.get("last", {}).get("step", 0)
        return self.rows[-1]["step"] >= end

    @property
    def num_replicas(self):
        """Number of replicas; None until the summary tells it."""
        return self.summary.get("num_replicas")

    @property
    def replica_batch_size(self):
        """Images a step and replica; None until the summary tells it."""
        if self.num_replicas is None:
            return None
        return self.config["global_batch_size"] // self.num_replicas

    @property
    def seconds_per_step(self):
        """Time of a training step, the median over the rows, or None."""
        _, rates = self.series("train/images_per_second")
        if not rates:
            return None
        return self.config["global_batch_size"] / statistics.median(rates)


def load(workdir, config_classes):
    """Reads the run in a workdir.

    Args:
        workdir: Path of the folder.
        config_classes: Config classes of the programs that may have run it.

    Raises:
        RecipeError: if there is no such folder, or no run in it.
    """
    folder = pathlib.Path(workdir).expanduser()
    if not folder.is_dir():
        raise RecipeError(
            f"there is no folder {folder}.{workdirs.similar(folder)}"
        )
    if not (folder / "config.json").exists():
        raise RecipeError(
            f"{folder} is no workdir of a run: it holds no config.json."
        )
    config = _read(folder / "config.json")
    found = [c for c in config_classes if setting.are_values(config, c)]
    if not found:
        raise RecipeError(
            f"{folder / 'config.json'} is not a config of recipes/imagenet.py "
            "or recipes/coco.py."
        )
    config_class = found[0]
    try:
        summary, faults = run_files.read_summary(folder / "summary.json")
        rows, of_rows = run_files.read_rows(folder / "metrics.jsonl")
    except OSError as error:
        raise RecipeError(
            f"{error.filename} cannot be read: {error.strerror}."
        ) from error
    # An evaluation of a run that was killed stands after steps without a save.
    rows = sorted(rows, key=lambda row: row["step"])
    config = {**config_class().to_dict(), **config}
    faults = (*faults, *of_rows)
    return Run(folder, config, rows, summary, faults, config_class)


def load_all(paths, config_classes):
    """The runs of workdirs, without those whose files cannot be read.

    Args:
        paths: Paths of their folders.
        config_classes: Config classes of the programs that may have run them.

    Returns:
        `(runs, faults)`: a list of `Run`, at least one, and a sentence on each
        file or run that was left out.

    Raises:
        RecipeError: for a folder that does not exist, or if no run can be read.
    """
    runs, faults = [], []
    for workdir in paths:
        if not (pathlib.Path(workdir) / "config.json").exists():
            load(workdir, config_classes)
        try:
            run = load(workdir, config_classes)
        except RecipeError as error:
            faults.append(f"{error} The run is left out.")
            continue
        runs.append(run)
        faults += [f"{fault}." for fault in run.faults]
    if not runs:
        raise RecipeError(faults[0].removesuffix(" The run is left out."))
    return runs, faults


def find(paths):
    """The workdirs among folders and below them, each once.

    Args:
        paths: Folders: workdirs, or folders that hold some at any depth.

    Raises:
        RecipeError: for a folder that is not there, or without any run.
    """
    found = {}
    for path in paths:
        if not str(path):
            # Path("") would be the folder that the program runs in.
            raise RecipeError("a workdir needs a name. Received: ''")
        folder = pathlib.Path(path).expanduser()
        workdirs = list(_workdirs(folder))
        if folder.is_dir() and not workdirs:
            raise RecipeError(
                f"{folder} holds no run: there is no config.json in it or "
                "below."
            )
        # What is not there is left to `load`, which says so.
        for workdir in workdirs or [folder]:
            found.setdefault(workdir.resolve(), workdir)
    return list(found.values())


def _workdirs(path):
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "config.json" in files:
            subfolders.clear()
            yield pathlib.Path(folder)


def _read(path):
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} is not of a run: it holds no JSON object.")
    return values
