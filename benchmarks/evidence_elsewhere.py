"""Trained networks on images of another place than they were trained on."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys

from recipes.experiments import aggregate as groups_lib
from recipes.experiments import scheduler as jobs_lib

ELSEWHERE = "trees_elsewhere"


def evaluate(cells, folder, data_dir, num_jobs):
    """Accuracies on the second photo, of every run that has a model.

    Args:
        cells: The `grid.Cell` of the runs on tree patches.
        folder: Where the evaluations have their workdirs.
        data_dir: Where the patches are.
        num_jobs: How many evaluations at a time.

    Returns:
        Dict from the name of a cell to its accuracy.
    """
    done = [
        cell for cell in cells if (cell.config.folder / "model.keras").exists()
    ]
    with concurrent.futures.ThreadPoolExecutor(num_jobs) as pool:
        found = pool.map(lambda cell: _evaluate(cell, folder, data_dir), done)
        return dict(zip([cell.name for cell in done], found, strict=True))


def spreads(cells, accuracies):
    """List of `(norm, groups.Spread)` over the seeds of each norm."""
    by_norm = {}
    for cell in cells:
        if cell.name in accuracies:
            values = by_norm.setdefault(cell.varied["norm"], [])
            values.append(accuracies[cell.name])
    return [(n, groups_lib.spread(values)) for n, values in by_norm.items()]


def _evaluate(cell, folder, data_dir):
    workdir = pathlib.Path(folder) / cell.name
    result = workdir / "eval.json"
    if not result.exists():
        config = cell.config
        settings = {
            "mode": "eval",
            "checkpoint": str(config.folder / "model.keras"),
            "dataset": f"folder:{pathlib.Path(data_dir) / ELSEWHERE}",
            "image_size": config.image_size,
            "augmentation": config.augmentation,
            "global_batch_size": config.global_batch_size,
            "workdir": str(workdir),
        }
        given = [groups_lib.argument(*item) for item in settings.items()]
        print(f"{cell.name} on {ELSEWHERE}", flush=True)
        subprocess.run(
            [sys.executable, str(jobs_lib.PROGRAM), *given],
            check=True,
            capture_output=True,
        )
    return json.loads(result.read_text())["eval/accuracy"]
