"""Reads metrics.jsonl and summary.json, whatever happened to them."""

import contextlib
import json

from absl import logging

# Values of summary.json that are read again, and what they may be.
_SUMMARY = {
    "last": dict,
    "best": dict,
    "bad_images": list,
    "class_names": list,
    "parameters": int,
    "num_replicas": int,
    "peak_memory_bytes": int | None,
    "skipped_updates": int,
    "seconds": int | float,
}


def read_rows(path):
    """Reads metrics.jsonl, without its damaged lines.

    A last line that a kill tore off is left out without a word: the step that
    it is of is trained again.

    Args:
        path: Path of the file, which need not exist.

    Returns:
        `(rows, faults)`: a list of dicts, and a sentence for each damaged line.

    Raises:
        OSError: if the file cannot be read.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    rows, faults = [], []
    for number, line in enumerate(lines, 1):
        row = _parse(line)
        if is_row(row):
            rows.append(row)
        elif line.strip() and number < len(lines):
            faults.append(f"{path}: line {number} is damaged and left out")
    return rows, faults


def read_summary(path):
    """Reads summary.json.

    Args:
        path: Path of the file, which need not exist.

    Returns:
        `(summary, faults)`: a dict, empty if the file does not exist or is
        damaged, and a list of no or one sentence.

    Raises:
        OSError: if the file cannot be read.
    """
    if not path.exists():
        return {}, []
    summary = _parse(path.read_bytes())
    fits = isinstance(summary, dict) and all(
        isinstance(summary[name], kind)
        for name, kind in _SUMMARY.items()
        if name in summary
    )
    if not fits or not _are_numbers(summary.get("last", {})):
        return {}, [f"{path} is damaged and ignored"]
    return summary, []


@contextlib.contextmanager
def left_out_if_damaged(path):
    """Inside, a file that is not as it was written is named and left out.

    Args:
        path: Path of a JSON file that is read and shown inside.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError):
        logging.warning("%s is damaged: the report leaves it out.", path)


def is_row(row):
    """Whether a value is an entry of metrics.jsonl."""
    return (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and row.get("epoch") is not None
        and _are_numbers(row)
    )


def _are_numbers(values):
    """Whether they are numbers, or null for what was not finite."""
    return all(
        value is None or type(value) in (int, float)
        for value in values.values()
    )


def _parse(data):
    """The JSON value; None for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
