"""Workdirs of runs that nobody ran."""

import json

from recipes.classification.config import Config


def write(folder, rows=(), summary=None, **settings):
    """Writes a workdir and returns its path.

    Args:
        folder: Path of the workdir.
        rows: Dicts of what metrics.jsonl holds besides `step` and `epoch`,
            which count from 1.
        summary: Dict of what summary.json holds besides `last`; None for a run
            without that file.
        settings: Where its config differs from the defaults.
    """
    folder.mkdir(parents=True)
    config = {**Config().to_dict(), "workdir": str(folder), **settings}
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


def curve(*accuracies):
    """Rows of evaluations."""
    return [{"eval/accuracy": value} for value in accuracies]
