"""What a sweep leaves: results.json, table.md, table.png, curves.png."""

import importlib.metadata
import json
import os
import pathlib
import platform

from recipes import curves
from recipes import groups as groups_lib
from recipes import jobs as jobs_lib
from recipes import sweep_figure
from recipes import sweep_table
from recipes import whole

PACKAGES = ("keras", "tensorflow", "tensorflow_datasets", "numpy")
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
    content = json.dumps(collect(jobs, command), indent=1) + "\n"
    whole.write_text(results, content)
    table = sweep_table.make([job.cell for job in jobs], x)
    written = [results, folder / "table.md"]
    whole.write_text(written[-1], _page(table, jobs, command))
    if not table.cells:
        return written
    written.append(folder / "table.png")
    _save(sweep_figure.draw(table), written[-1])
    written.append(folder / "curves.png")
    _save(curves.draw(groups(table)), written[-1])
    return written


def groups(table):
    """The groups of a table, in its order, named by row and column."""
    named = []
    for (row, column), group in table.cells.items():
        label = row
        if table.x is not None:
            label += f" {groups_lib.flag(table.x, column)}"
        named.append(groups_lib.Group(label, {}, group.runs))
    return named


def collect(jobs, command):
    """All that a sweep came to, for programs."""
    return {
        "command": command,
        "versions": versions(),
        "machine": f"{len(_cores())} cores, {processor()}",
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
    run = job.run()
    if run is None or job.status != jobs_lib.DONE:
        return result
    epochs, accuracies = run.series("eval/accuracy")
    return {
        **result,
        "accuracy": run.final("eval/accuracy"),
        "loss": run.final("eval/loss"),
        "evaluations": dict(zip(map(str, epochs), accuracies, strict=True)),
        "examples_trained_on": run.rows[-1]["step"]
        * job.cell.config.global_batch_size,
        "num_replicas": run.num_replicas,
        "seconds_per_step": run.seconds_per_step,
        "seconds": run.summary["seconds"],
        "peak_memory_bytes": run.summary.get("peak_memory_bytes"),
        "parameters": run.summary["parameters"],
    }


def _page(table, jobs, command):
    parts = [f"    {command}", sweep_table.markdown(table)]
    heads = ["", *(heading for heading, *_ in COLUMNS)]
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for group in groups(table):
        texts = [_text(group, *column[1:]) for column in COLUMNS]
        lines.append(f"| `{group.label}` | " + " | ".join(texts) + " |")
    parts.append("\n".join(lines))
    parts.append(
        "± is the sample standard deviation over seeds; memory is the peak of "
        "the process, or of a GPU."
    )
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
    with whole.file(path) as place:
        figure.savefig(place, dpi=130)
