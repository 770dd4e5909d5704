"""Writes the report of a sweep: results.json, table.md and figures."""

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re

from recipes import atomic_io
from recipes.experiments import aggregate
from recipes.experiments import grid
from recipes.experiments import plots
from recipes.experiments import results_table
from recipes.experiments import scheduler

PACKAGES = (
    "keras_norm",
    "keras",
    "tensorflow",
    "tensorflow_datasets",
    "numpy",
)
# With more groups, each value along x gets its own figure of curves.
MAX_CURVES = 12


def write_report(folder, jobs, command, x=None):
    """Writes the files.

    Args:
        folder: Path of the sweep.
        jobs: List of `scheduler.Job`.
        command: The sweep's command.
        x: Name of the setting along x, or None.

    Returns:
        List of the files' paths; data frame with the table of the score.
    """
    folder = pathlib.Path(folder)
    program = jobs[0].cell.program
    runs = [job.load_run() for job in jobs]
    content = collect(jobs, runs, command, x)
    table = results_table.make_table(content["runs"], x)
    groups = _group_runs(table, runs)
    shown = results_table.pivot(table, program.score)
    paths = [folder / "results.json", folder / "table.md"]
    text = json.dumps(_without_nan(content), indent=1, allow_nan=False)
    atomic_io.write_text(paths[0], text + "\n")
    page = _format_page(table, shown, groups, jobs, command)
    atomic_io.write_text(paths[1], page)
    if groups:
        figures = {"table": plots.draw_table(table, program.score)}
        for name, some in _split_groups(table, groups).items():
            figures[name] = plots.draw_curves(some, program)
        for name, figure in figures.items():
            paths.append(folder / f"{name}.png")
            plots.save(figure, paths[-1])
    return paths, shown


def collect(jobs, runs, command, x=None):
    """Collects the content of results.json.

    Args:
        jobs: List of `scheduler.Job`.
        runs: List of the `Run` of each job, None for unfinished ones.
        command: The sweep's command.
        x: Name of the setting along x, or None.
    """
    return {
        "command": command,
        "versions": get_versions(),
        "machine": describe_machine(),
        "runs": [
            _collect_run(job, run, x)
            for job, run in zip(jobs, runs, strict=True)
        ],
    }


def get_versions():
    """Returns the versions of the packages, without importing them."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_machine():
    """Returns the number of available cores and the processor's name."""
    cores = len(os.sched_getaffinity(0))
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return f"{cores} cores, {name[1] if name else platform.machine()}"


def _collect_run(job, run, x):
    config, varied = job.cell.config, job.cell.varied
    result = {
        "name": job.cell.name,
        "settings": dict(varied),
        "seed": config.seed,
        "status": job.status,
        "command": job.cell.command,
    }
    if x is not None:
        result["settings"].setdefault(x, getattr(config, x, None))
    if job.error is not None:
        result["error"] = job.error
    if run is None:
        return result
    epochs, scores = run.series(f"eval/{job.cell.program.score.key}")
    return {
        **result,
        **aggregate.measure(run, job.cell.program),
        "evaluations": dict(zip(map(str, epochs), scores, strict=True)),
        "examples_trained_on": count_examples(run),
        "num_replicas": run.num_replicas,
        "num_train": run.summary.get("num_train"),
        "num_eval": run.summary.get("num_eval"),
    }


def count_examples(run):
    """Counts the training examples, repeated ones several times."""
    step, size = run.entries[-1]["step"], run.config["global_batch_size"]
    num_train = run.summary.get("num_train")
    if run.config["drop_remainder"] or num_train is None:
        return step * size
    # The last batch of an epoch is padded.
    epochs, rest = divmod(step, -(-num_train // size))
    return epochs * num_train + rest * size


def _group_runs(table, runs):
    """Groups the ended runs: dict from (row, column) to a list of `Run`."""
    groups = {}
    keys = zip(table.frame["row"], table.frame["column"], strict=True)
    for key, run in zip(keys, runs, strict=True):
        if run is not None:
            groups.setdefault(key, []).append(run)
    return groups


def _label(table, row, column):
    if table.x is None:
        return row
    return f"{row} {grid.format_flag(table.x, column)}"


def _split_groups(table, groups):
    """Splits groups by figure: dict from its name to a dict of groups."""
    if len(groups) <= MAX_CURVES or table.x is None:
        named = {_label(table, *key): runs for key, runs in groups.items()}
        return {"curves": named}
    figures = {}
    for (row, column), runs in groups.items():
        name = f"curves-{table.x}={column}"
        figures.setdefault(re.sub(r"[^\w.=+-]+", "_", name), {})[row] = runs
    return figures


def _format_page(table, shown, groups, jobs, command):
    program = jobs[0].cell.program
    corner = "" if table.x is None else program.score.heading
    named = {_label(table, *key): runs for key, runs in groups.items()}
    parts = [f"    {command}", results_table.format_markdown(shown, corner)]
    if named:
        details = aggregate.summarize(named, program)
        parts.append(results_table.format_markdown(details))
    parts.append(
        "± is the sample standard deviation over seeds. Memory is the peak of "
        "the process, or of a GPU."
    )
    num_ended = sum(map(len, groups.values()))
    if num_ended < len(jobs):
        parts.append(f"{num_ended} of {len(jobs)} runs are done.")
    failed = [job for job in jobs if job.status == scheduler.FAILED]
    if failed:
        lines = [f"* `{job.cell.name}`: {job.error}" for job in failed]
        parts.append("Failed:\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _without_nan(value):
    """Replaces non-finite numbers, which JSON cannot hold, by their names."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
