"""Detectors of trees with several norms, trained and compared."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

from recipes.config import base as config_lib
from recipes.detection.config import DetectionConfig
from recipes.errors import RecipeError
from recipes.experiments import aggregate as groups_lib
from recipes.experiments import results_table
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_report
from recipes.run_dir import run_dir

PROGRAM = jobs_lib.PROGRAM.with_name("coco.py")
# Of a row of the table: heading, and what the last evaluation calls it.
VALUES = {
    "training AP50": "training_AP50",
    "training AP": "training_AP",
    "held-out AP50": "AP50",
    "held-out AP": "AP",
}


@dataclasses.dataclass(frozen=True)
class Detectors:
    """What is trained, each norm in a run of its own.

    Attributes:
        norms: Their names; images of the first are drawn.
        settings: Dict of what all of them share.
    """

    norms: tuple
    settings: dict


DETECTORS = Detectors(("frn", "gn", "bn", "rbn"), {"preset": "trees"})


@dataclasses.dataclass(frozen=True)
class Run:
    """One of them.

    Attributes:
        norm: Its norm.
        arguments: What `recipes/coco.py` gets.
        config: The `DetectionConfig` that they make.
    """

    norm: str
    arguments: tuple
    config: DetectionConfig

    @property
    def folder(self):
        """The workdir."""
        return self.config.folder

    @property
    def log(self):
        """Where its output goes."""
        return self.folder / jobs_lib.LOG

    def summary(self):
        """What summary.json holds, if it was trained to its end, else None."""
        try:
            summary = json.loads((self.folder / "summary.json").read_text())
            *_, last = (self.folder / "metrics.jsonl").read_text().splitlines()
            step = json.loads(last)["step"]
        except (OSError, ValueError):
            return None
        # As `runs.Run.is_finished`.
        ended = "seconds" in summary and step >= summary["last"]["step"]
        return summary if ended else None

    def values(self):
        """The last evaluation by the headings of `VALUES`."""
        last = self.summary()["last"]
        return {head: last[f"eval/{key}"] for head, key in VALUES.items()}


def plan(detectors, folder, data_dir):
    """The list of `Run`.

    Args:
        detectors: A `Detectors`.
        folder: Where the runs have their workdirs.
        data_dir: Where the tiles are, or are put.

    Raises:
        RecipeError: for a setting that cannot be.
    """
    runs = []
    for norm in detectors.norms:
        settings = {
            **detectors.settings,
            "norm": norm,
            "data_dir": str(data_dir),
            "workdir": str(pathlib.Path(folder) / norm),
        }
        name = settings.get("preset")
        preset = config_lib.get_preset(DetectionConfig, name)
        config = config_lib.make_config(DetectionConfig, settings, preset)
        arguments = [groups_lib.argument(*each) for each in settings.items()]
        runs.append(Run(norm, tuple(arguments), config))
    return runs


def train(detectors, folder, data_dir):
    """Trains what has not ended yet, one after the other.

    Args:
        detectors, folder, data_dir: As for `plan`.

    Returns:
        The list of `Run`, all ended.

    Raises:
        RecipeError: for a run that failed, or whose workdir holds another one.
    """
    runs = plan(detectors, folder, data_dir)
    for run in runs:
        run_dir.check_run_dir(run.config)
        run.config.folder.mkdir(parents=True, exist_ok=True)
    print("detection:", flush=True)
    for run in runs:
        if run.summary() is not None:
            print(f"  {run.norm} has ended before", flush=True)
            continue
        start = time.monotonic()
        _train(run)
        minutes = (time.monotonic() - start) / 60
        values = ", ".join(f"{k} {v:.1%}" for k, v in run.values().items())
        print(f"  {run.norm} in {minutes:.1f} min: {values}", flush=True)
    return runs


def _train(run):
    with run.log.open("ab") as log:
        begin = log.tell()
        launcher = [sys.executable, "-I", "-S", jobs_lib.LAUNCH]
        process = subprocess.Popen(
            [*launcher, str(os.getpid()), "", PROGRAM, *run.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except KeyboardInterrupt:
            print(f"  stopping: {run.norm} saves first", flush=True)
            process.terminate()
            process.wait()
            raise
    if code or run.summary() is None:
        raise RecipeError(
            f"detection with {run.norm} ended with exit code {code}: "
            f"{jobs_lib.reason(run.log, begin)} ({run.log})"
        )


def markdown(runs):
    """The table of the runs."""
    heads = [f"{head}, %" for head in VALUES]
    rows = {
        f"--norm={run.norm}": [
            *(f"{100 * value:.1f}" for value in run.values().values()),
            f"{run.summary()['seconds'] / 60:.1f}",
            f"{run.summary()['parameters']:,}",
        ]
        for run in runs
    }
    return results_table.grid_of(["", *heads, "minutes", "parameters"], rows)


def collect(runs, command):
    """All that they came to, for programs."""
    return {
        "command": command,
        "versions": sweep_report.versions(),
        "machine": sweep_report.machine(),
        "runs": [_result(run) for run in runs],
    }


def _result(run):
    summary = run.summary()
    values = {VALUES[head]: value for head, value in run.values().items()}
    facts = ("num_replicas", "num_train", "num_eval", "seconds", "parameters")
    return {
        "norm": run.norm,
        "seed": run.config.seed,
        "command": f"python recipes/coco.py {' '.join(run.arguments)}",
        "steps": summary["last"]["step"],
        "global_batch_size": run.config.global_batch_size,
        **values,
        **{fact: summary[fact] for fact in facts},
    }
