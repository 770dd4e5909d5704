"""Runs a sweep and writes its results."""

import importlib.metadata
import json
import pathlib
import platform
import re

from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.experiments import gpu_assignment
from recipes.experiments import grid
from recipes.experiments import plots
from recipes.experiments import results
from recipes.experiments import scheduler
from recipes.run_dir import lock

PACKAGES = "keras_norm keras tensorflow tensorflow_datasets numpy".split()


def run_sweep(cells, folder, shares, command, x=None):
    """Runs the cells that are not done yet, and writes the results.

    Args:
        cells: List of `grid.Cell`.
        folder: Path of the sweep.
        shares: List of `gpu_assignment.Share`, one for each concurrent run.
        command: The sweep's command, for the results.
        x: Name of the setting along the x axis, or None.

    Returns:
        List of `scheduler.Job`, each done or failed.

    Raises:
        RecipeError: if another sweep uses the folder, or a workdir holds a run
            with other settings.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once all runs have saved and
            the results are written.
    """
    folder = pathlib.Path(folder)
    if (folder / "config.json").exists():
        raise RecipeError(
            f"{folder} is the workdir of a run. Choose another --out."
        )
    grid.check_names(cells)
    grid.check_workdirs(cells)
    with lock.acquire_lock(folder, "sweep", "out"):
        scheduler.await_workdirs(cells)
        jobs = [scheduler.Job(cell) for cell in cells]
        num_before = sum(job.status == scheduler.DONE for job in jobs)
        if num_before:
            print(f"{num_before} of {len(jobs)} runs were done before")

        def show(job):
            ended = (scheduler.DONE, scheduler.FAILED)
            count = sum(each.status in ended for each in jobs)
            text = f"{job.status} {job.error or ''}".strip()
            print(f"{count}/{len(jobs)}  {job.cell.name}  {text}", flush=True)

        try:
            scheduler.run_jobs(jobs, shares, show)
        finally:
            paths = write_results(folder, jobs, command, x)
            print(f"wrote {' '.join(map(str, paths))}", flush=True)
    return jobs


def write_results(folder, jobs, command, x=None):
    """Writes results.json, table.md and the figures, and prints the table.

    Args:
        folder: Path of the sweep.
        jobs: List of `scheduler.Job`.
        command: The sweep's command.
        x: Name of the setting along x, or None.

    Returns:
        List of the files' paths.
    """
    program = jobs[0].cell.program
    content = collect(jobs, command, x)
    table = results.make_table(content["runs"], x)
    groups = {}
    keys = zip(table.frame["row"], table.frame["column"], strict=True)
    for (label, column), job in zip(keys, jobs, strict=True):
        if table.x is not None:
            label += f" {grid.format_flag(table.x, column)}"
        run = job.load_run()
        if run is not None:
            groups.setdefault(label, []).append(run)
    corner = "" if table.x is None else program.score.heading
    shown = results.pivot(table, program.score)
    shown = results.format_markdown(shown, corner)
    print(shown)
    parts = [f"    {command}", shown]
    figures = {}
    if groups:
        details = results.summarize(groups, program)
        parts.append(results.format_markdown(details))
        figures["table"] = plots.draw_table(table, program.score)
        figures["curves"] = plots.draw_curves(groups, program)
    num_ended = sum(map(len, groups.values()))
    parts.append(
        f"{num_ended} of {len(jobs)} runs are done. ± is the sample standard "
        "deviation over seeds. Memory is the peak of the process, or of a GPU."
    )
    parts += [f"* `{j.cell.name}`: {j.error}" for j in jobs if j.error]
    # JSON has no NaN and infinity, which become strings.
    content = json.loads(json.dumps(content), parse_constant=str)
    texts = {
        "results.json": json.dumps(content, indent=1),
        "table.md": "\n\n".join(parts),
    }
    for name, text in texts.items():
        atomic_io.write_text(folder / name, text + "\n")
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")
    return [folder / name for name in [*texts, *(f"{n}.png" for n in figures)]]


def collect(jobs, command, x=None):
    """Collects the content of results.json.

    Args:
        jobs: List of `scheduler.Job`.
        command: The sweep's command.
        x: Name of the setting along x, or None.
    """
    info = pathlib.Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    name = name[1] if name else platform.machine()
    return {
        "command": command,
        "versions": {
            "python": platform.python_version(),
            **{name: _find_version(name) for name in PACKAGES},
        },
        "machine": f"{len(gpu_assignment.find_cores())} cores, {name}",
        "runs": [_collect_run(job, x) for job in jobs],
    }


def _find_version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _collect_run(job, x):
    cell, config, run = job.cell, job.cell.config, job.load_run()
    result = {
        "name": cell.name,
        "settings": dict(cell.varied),
        "seed": config.seed,
        "status": job.status,
        "command": cell.command,
    }
    if x is not None:
        result["settings"].setdefault(x, getattr(config, x, None))
    if job.error is not None:
        result["error"] = job.error
    if run is None:
        return result
    epochs, scores = run.series(f"eval/{cell.program.score.key}")
    return {
        **result,
        **results.measure(run, cell.program),
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
