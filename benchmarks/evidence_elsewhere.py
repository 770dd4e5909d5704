"""Evaluates trained networks on a photo of another place."""

import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import sys

from recipes.experiments.grid import format_argument

ELSEWHERE = "trees_elsewhere"


def evaluate(cells, folder, data_dir, num_jobs):
    """Computes the accuracies on the second photo.

    Args:
        cells: The `grid.Cell` of the finished runs on tree patches.
        folder: Path for the workdirs of the evaluations.
        data_dir: Path of the patches.
        num_jobs: Number of concurrent evaluations.

    Returns:
        Dict from norm to the mean, deviation, lowest and highest accuracy, and
        number of its seeds.
    """
    accuracies = {}
    with concurrent.futures.ThreadPoolExecutor(num_jobs) as pool:
        results = pool.map(
            lambda cell: _evaluate(cell, folder, data_dir), cells
        )
        for cell, accuracy in zip(cells, results, strict=True):
            accuracies.setdefault(cell.varied["norm"], []).append(accuracy)
    return {
        norm: {
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
            "low": min(values),
            "high": max(values),
            "num": len(values),
        }
        for norm, values in accuracies.items()
    }


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
        given = [format_argument(*item) for item in settings.items()]
        print(f"{cell.name} on {ELSEWHERE}", flush=True)
        subprocess.run(
            [sys.executable, str(cell.program.script), *given],
            check=True,
            capture_output=True,
        )
    return json.loads(result.read_text())["eval/accuracy"]
