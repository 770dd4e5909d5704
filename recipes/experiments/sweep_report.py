"""What a sweep leaves: results.json, table.md, table.png and curves*.png."""

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re

from recipes import atomic_io
from recipes.experiments import aggregate as groups_lib
from recipes.experiments import compare_report
from recipes.experiments import plots
from recipes.experiments import results_table
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_figure

PACKAGES = (
    "keras_norm",
    "keras",
    "tensorflow",
    "tensorflow_datasets",
    "numpy",
)
# Of more groups, each value along x has curves in a figure of its own.
MAX_CURVES = 12
# Columns of the second table: heading, key or function, factor, digits.
COLUMNS = (
    ("seeds", None, 1, 0),
    ("test top-1, %", "eval/accuracy", 100, 2),
    ("test loss", "eval/loss", 1, 4),
    ("ms a step", lambda run: run.seconds_per_step, 1e3, 1),
    (
        "peak memory, MiB",
        lambda run: run.summary.get("peak_memory_bytes"),
        2**-20,
        0,
    ),
    ("time, s", lambda run: run.summary.get("seconds"), 1, 0),
)


def write(folder, jobs, command, x=None):
    """Writes the files and returns their paths.

    Args:
        folder: Path of the sweep.
        jobs: List of `jobs.Job`.
        command: The command of the sweep.
        x: Name of the setting along x, or None.
    """
    folder = pathlib.Path(folder)
    results = folder / "results.json"
    content = _without_nan(collect(jobs, command))
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    atomic_io.write_text(results, text)
    table = make_table(jobs, x)
    written = [results, folder / "table.md"]
    atomic_io.write_text(written[-1], _page(table, jobs, command))
    if not table.cells:
        return written
    written.append(folder / "table.png")
    _save(sweep_figure.draw(table), written[-1])
    for name, some in _panels(table).items():
        written.append(folder / f"{name}.png")
        _save(plots.draw(some), written[-1])
    return written


def make_table(jobs, x=None):
    """The `sweep_table.Table` of jobs, of those that ended."""
    ended = {id(job.cell): job.ended_run() for job in jobs}
    cells = [job.cell for job in jobs]
    return results_table.make(cells, x, lambda cell: ended[id(cell)])


def groups(table):
    """The groups of a table, in its order, named by row and column."""
    named = []
    for (row, column), group in table.cells.items():
        label = row
        if table.x is not None:
            label += f" {groups_lib.flag(table.x, column)}"
        named.append(groups_lib.Group(label, {}, group.runs))
    return named


def _panels(table):
    """The groups of a table by the name of a figure, not too many in one."""
    if len(table.cells) <= MAX_CURVES or table.x is None:
        return {"curves": groups(table)}
    panels = {}
    for (_, column), group in table.cells.items():
        name = groups_lib.argument(table.x, column).removeprefix("--")
        name = "curves-" + re.sub(r"[^\w.=+-]+", "_", name)
        panels.setdefault(name, []).append(group)
    return panels


def collect(jobs, command):
    """All that a sweep came to, for programs."""
    return {
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "runs": [_result(job) for job in jobs],
    }


def versions():
    """Versions of what decides the numbers, without importing it."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine():
    """Number of cores and name of the processor."""
    return f"{len(_cores())} cores, {processor()}"


def processor():
    """The name of the processor."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores():
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return range(os.cpu_count() or 1)


def _result(job):
    result = {
        "name": job.cell.name,
        "settings": job.cell.varied,
        "seed": job.cell.config.seed,
        "status": job.status,
        "command": job.cell.command,
    }
    if job.error is not None:
        result["error"] = job.error
    run = job.ended_run()
    if run is None:
        return result
    epochs, accuracies = run.series("eval/accuracy")
    return {
        **result,
        "accuracy": run.final("eval/accuracy"),
        "loss": run.final("eval/loss"),
        "training_loss": compare_report.last_losses(run),
        "evaluations": dict(zip(map(str, epochs), accuracies, strict=True)),
        "examples_trained_on": _num_examples(run),
        "num_replicas": run.num_replicas,
        "seconds_per_step": run.seconds_per_step,
        "seconds": run.summary["seconds"],
        "peak_memory_bytes": run.summary.get("peak_memory_bytes"),
        "parameters": run.summary.get("parameters"),
    }


def _num_examples(run):
    """How many images a run was trained on, those seen twice counted twice."""
    step, size = run.rows[-1]["step"], run.config["global_batch_size"]
    num_train = run.summary.get("num_train")
    if run.config["drop_remainder"] or num_train is None:
        return step * size
    # The last batch of an epoch is filled up with nothing.
    epochs, rest = divmod(step, -(-num_train // size))
    return epochs * num_train + rest * size


def _without_nan(value):
    """A value that JSON can hold: numbers that are not finite as words."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _page(table, jobs, command):
    parts = [f"    {command}", results_table.markdown(table)]
    heads = ["", *(heading for heading, *_ in COLUMNS)]
    rows = {
        group.label: [_text(group, *column[1:]) for column in COLUMNS]
        for group in groups(table)
    }
    parts.append(results_table.grid_of(heads, rows))
    parts.append(
        "± is the sample standard deviation over seeds; memory is the peak of "
        "the process, or of a GPU."
    )
    num_ended = sum(job.ended_run() is not None for job in jobs)
    if num_ended < len(jobs):
        parts.append(f"{num_ended} of {len(jobs)} runs ended.")
    failed = [job for job in jobs if job.status == jobs_lib.FAILED]
    if failed:
        parts.append("Failed:")
        parts.append(
            "\n".join(f"* `{job.cell.name}`: {job.error}" for job in failed)
        )
    return "\n\n".join(parts) + "\n"


def _text(group, value, factor, digits):
    if value is None:
        return str(len(group.runs))
    spread = group.spread(value)
    return "" if spread is None else spread.text(digits, factor)


def _save(figure, path):
    with atomic_io.atomic_file(path) as place:
        figure.savefig(place, dpi=130)
