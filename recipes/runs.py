"""Runs as their workdirs tell them, without TensorFlow."""

import dataclasses
import json
import os
import pathlib
import statistics

from recipes.config import Config
from recipes.errors import RecipeError


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
    """

    folder: pathlib.Path
    config: dict
    rows: list
    summary: dict

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


def load(workdir):
    """The run of a workdir.

    Raises:
        RecipeError: if there is no such folder, or no run in it.
    """
    folder = pathlib.Path(workdir).expanduser()
    if not folder.is_dir():
        raise RecipeError(f"there is no folder {folder}.")
    if not (folder / "config.json").exists():
        raise RecipeError(
            f"{folder} is no workdir of a run: it holds no config.json."
        )
    config = _read(folder / "config.json")
    defaults = Config().to_dict()
    if not config or set(config) - set(defaults):
        raise RecipeError(
            f"{folder / 'config.json'} is not a config of recipes/imagenet.py."
        )
    summary = {}
    if (folder / "summary.json").exists():
        summary = _read(folder / "summary.json")
    rows = _read_rows(folder / "metrics.jsonl")
    return Run(folder, {**defaults, **config}, rows, summary)


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
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} is not of a run: it holds no JSON object.")
    return values


def _read_rows(path):
    """The rows of metrics.jsonl, up to one that a kill tore off."""
    if not path.exists():
        return []
    rows = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or not {"step", "epoch"} <= set(row):
            raise RecipeError(f"{path}: line {number} is no row of a run.")
        rows.append(row)
    # An evaluation of a run that was killed stands after steps without a save.
    return sorted(rows, key=lambda row: row["step"])
