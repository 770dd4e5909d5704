"""Runs a sweep, prints its progress and writes its report."""

import pathlib
import time

from recipes.errors import RecipeError
from recipes.experiments import grid
from recipes.experiments import results_table
from recipes.experiments import scheduler
from recipes.experiments import sweep_report
from recipes.run_dir import lock


def run_sweep(cells, folder, shares, command, x=None):
    """Runs the cells that are not done yet, and writes the report.

    Args:
        cells: List of `grid.Cell`.
        folder: Path of the sweep.
        shares: List of `resources.Share`, one for each concurrent run.
        command: The sweep's command, for the report.
        x: Name of the setting along the x axis, or None.

    Returns:
        List of `scheduler.Job`, each done or failed.

    Raises:
        RecipeError: if another sweep uses the folder, or a workdir holds a run
            with other settings.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once all runs have saved and
            the report is written.
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
        try:
            scheduler.run_jobs(jobs, shares, _make_progress(jobs))
        finally:
            paths, table = sweep_report.write_report(folder, jobs, command, x)
            print(results_table.format_markdown(table))
            print("wrote " + " ".join(map(str, paths)), flush=True)
    return jobs


def _make_progress(jobs):
    """Returns `f(job)`, which prints one line about a job that has ended."""
    num_before = sum(job.status == scheduler.DONE for job in jobs)
    if num_before:
        print(f"{num_before} of {len(jobs)} runs were done before", flush=True)
    start = time.monotonic()
    num_ended = num_before

    def show(job):
        nonlocal num_ended
        num_ended += 1
        text = f"{num_ended}/{len(jobs)}  {job.cell.name}"
        run = job.load_run() if job.status == scheduler.DONE else None
        if run is None:
            print(f"{text}  failed, {job.error}", flush=True)
            return
        score = job.cell.program.score
        value = run.final(f"eval/{score.key}")
        if value is not None:
            text += f"  {score.heading} {score.factor * value:.{score.digits}f}"
        num_left = len(jobs) - num_ended
        if num_left:
            seconds = (time.monotonic() - start) / (num_ended - num_before)
            text += f", about {seconds * num_left / 60:.0f} min left"
        print(text, flush=True)

    return show
