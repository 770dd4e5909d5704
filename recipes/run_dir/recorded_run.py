"""Reads what finished and unfinished runs wrote, without TensorFlow."""

import dataclasses
import os
import pathlib
import statistics

from recipes.errors import RecipeError
from recipes.run_dir import metrics_log
from recipes.run_dir import run_dir


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """The files of a run.

    Attributes:
        folder: Path of its workdir.
        config: Dict of its settings. Settings that are newer than the run have
            their default values.
        entries: List of its metrics entries by step: dicts of `step`, `epoch`
            and `split/metric`, with None for values that were not finite.
        summary: Dict with the content of summary.json; may be empty.
        faults: Tuple of sentences on damaged files or entries left out.
        config_class: The config class of its program.
    """

    folder: pathlib.Path
    config: dict
    entries: list
    summary: dict
    faults: tuple = ()
    config_class: type | None = None

    def series(self, key):
        """Returns the epochs and values of the entries that have a value."""
        entries = [e for e in self.entries if e.get(key) is not None]
        return [e["epoch"] for e in entries], [e[key] for e in entries]

    def final(self, key):
        """Returns the newest value of a key; None if missing or not finite."""
        values = [entry[key] for entry in self.entries if key in entry]
        return values[-1] if values else None

    def best(self, key):
        """Returns the highest value of a key, or None."""
        return max(self.series(key)[1], default=None)

    @property
    def epoch(self):
        """Epoch of the last metrics entry; 0 without entries."""
        return self.entries[-1]["epoch"] if self.entries else 0

    @property
    def is_finished(self):
        """True if the run was trained to its end.

        Evaluating an unfinished run also writes a summary, but without the time
        of training. A finished run that has lost its newest checkpoint and is
        trained again has a summary of later steps than its entries.
        """
        if "seconds" not in self.summary or not self.entries:
            return False
        end = self.summary.get("last", {}).get("step")
        return end is None or self.entries[-1]["step"] >= end

    @property
    def num_replicas(self):
        """Number of replicas; None before the summary is written."""
        return self.summary.get("num_replicas")

    @property
    def replica_batch_size(self):
        """Images per step and replica; None before the summary is written."""
        if self.num_replicas is None:
            return None
        return self.config["global_batch_size"] // self.num_replicas

    @property
    def seconds_per_step(self):
        """Median time of a training step over the entries, or None."""
        _, rates = self.series("train/images_per_second")
        if not rates:
            return None
        return self.config["global_batch_size"] / statistics.median(rates)


def load_run(workdir, config_classes):
    """Reads the run in a workdir.

    Args:
        workdir: Path of the folder.
        config_classes: Config classes of the programs that may have run it.

    Returns:
        A `RecordedRun`.

    Raises:
        RecipeError: if the folder does not exist or holds no run.
    """
    folder = pathlib.Path(workdir).expanduser()
    if not folder.is_dir():
        raise RecipeError(
            f"the folder {folder} does not exist.{run_dir.suggest_runs(folder)}"
        )
    config_class, config = run_dir.read_config(folder, config_classes)
    try:
        summary, summary_faults = metrics_log.read_summary(
            folder / "summary.json"
        )
        entries, faults = metrics_log.read_metrics(folder / "metrics.jsonl")
    except OSError as error:
        raise RecipeError(
            f"{error.filename} cannot be read: {error.strerror}."
        ) from error
    # The evaluation of a killed run is logged after steps that had no
    # checkpoint, which are trained and logged again.
    entries = sorted(entries, key=lambda entry: entry["step"])
    config = {**config_class().to_dict(), **config}
    faults = (*summary_faults, *faults)
    return RecordedRun(folder, config, entries, summary, faults, config_class)


def load_runs(paths, config_classes):
    """Reads the runs in workdirs, without runs that cannot be read.

    Args:
        paths: Paths of their folders.
        config_classes: Config classes of the programs that may have run them.

    Returns:
        `(runs, faults)`: a list of at least one `RecordedRun`, and a sentence
        on each file or run that was left out.

    Raises:
        RecipeError: if a folder does not exist, or no run can be read.
    """
    runs, faults = [], []
    for workdir in paths:
        if not (pathlib.Path(workdir) / run_dir.CONFIG_FILE).exists():
            load_run(workdir, config_classes)  # Raises an error.
        try:
            run = load_run(workdir, config_classes)
        except RecipeError as error:
            faults.append(f"{error} The run is left out.")
            continue
        runs.append(run)
        faults += [f"{fault}." for fault in run.faults]
    if not runs:
        raise RecipeError(faults[0].removesuffix(" The run is left out."))
    return runs, faults


def find_workdirs(paths):
    """Finds the workdirs among folders and below them, without duplicates.

    Args:
        paths: Workdirs, or folders that hold workdirs at any depth. A folder
            that does not exist is returned: `load_run` raises its error.

    Raises:
        RecipeError: if a folder holds no run.
    """
    found = {}
    for path in paths:
        if not str(path):
            # Path("") would be the current folder.
            raise RecipeError("a workdir needs a name. Received: ''")
        folder = pathlib.Path(path).expanduser()
        workdirs = list(_walk_workdirs(folder))
        if folder.is_dir() and not workdirs:
            raise RecipeError(
                f"{folder} holds no run: neither it nor its subfolders have a "
                f"{run_dir.CONFIG_FILE}."
            )
        for workdir in workdirs or [folder]:
            found.setdefault(workdir.resolve(), workdir)
    return list(found.values())


def _walk_workdirs(path):
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if run_dir.CONFIG_FILE in files:
            subfolders.clear()
            yield pathlib.Path(folder)
