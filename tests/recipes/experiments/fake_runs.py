"""Workdirs with the files of a run, written without training."""

import json

from recipes.experiments.programs import CONFIG_CLASSES
from recipes.experiments.programs import PROGRAMS
from recipes.run_dir import recorded_run

ENDED = {"seconds": 120.0, "parameters": 1000, "num_replicas": 1}


def write(folder, rows=(), summary=None, program="imagenet", **settings):
    """Writes a workdir and returns its path.

    Args:
        folder: Path of the workdir.
        rows: Dicts with the content of metrics.jsonl except `step` and `epoch`,
            which count from 1.
        summary: Dict with the content of summary.json except `last`; None
            writes no such file.
        program: Name of the program.
        settings: Settings that differ from the defaults.
    """
    folder.mkdir(parents=True)
    config = PROGRAMS[program].config().to_dict()
    config = {"program": program, **config, "workdir": str(folder)}
    config |= settings
    (folder / "config.json").write_text(json.dumps(config))
    rows = [
        {"step": i, "epoch": float(i), **row} for i, row in enumerate(rows, 1)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text)
    if summary is not None:
        summary = {"last": rows[-1] if rows else {}, **summary}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def load(folder, *arguments, **settings):
    """Writes a workdir and loads its run."""
    folder = write(folder, *arguments, **settings)
    return recorded_run.load_run(folder, CONFIG_CLASSES)


def curve(*values, key="eval/accuracy"):
    """Makes metrics entries of evaluations."""
    return [{key: value} for value in values]
