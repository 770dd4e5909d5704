"""A sweep from its cells to its report."""

import pathlib

from recipes.errors import RecipeError
from recipes.experiments import grid
from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_progress
from recipes.experiments import sweep_report
from recipes.run_dir import lock


def run(cells, folder, shares, command, x=None):
    """Runs what is not done yet and writes the report, also when stopped.

    Args:
        cells: List of `grid.Cell`.
        folder: Path of the sweep.
        shares: List of `shares.Share`, one for each run at a time.
        command: The command of the sweep, for its report.
        x: Name of the setting along x, or None.

    Returns:
        The list of `jobs.Job`, each done or failed.

    Raises:
        RecipeError: if the folder is in use by another sweep, or a workdir
            holds a run of another config.
        KeyboardInterrupt: if it is stopped, after every run has saved.
    """
    folder = pathlib.Path(folder)
    if (folder / "config.json").exists():
        raise RecipeError(
            f"{folder} is the workdir of a run. Choose another --out."
        )
    grid.check_workdirs(cells)
    with lock.acquire_lock(folder, "sweep", "out"):
        jobs_lib.await_workdirs(cells)
        jobs = jobs_lib.make(cells)
        try:
            with sweep_progress.SweepProgress(jobs, x) as progress:
                jobs_lib.finish(jobs, shares, progress.watch)
        finally:
            written = sweep_report.write(folder, jobs, command, x)
            print("wrote " + " ".join(str(path) for path in written))
    return jobs
