"""The metrics of a run: metrics.jsonl, summary.json and TensorBoard events."""

import contextlib
import json
import math

from absl import logging

from recipes import atomic_io

# Values of summary.json that are read back, and their types.
_SUMMARY_TYPES = {
    "last": dict,
    "best": dict,
    "bad_images": list,
    "class_names": list,
    "num_channels": int,
    "suited_augmentation": str | None,
    "parameters": int,
    "num_replicas": int,
    "peak_memory_bytes": int | None,
    "skipped_updates": int,
    "seconds": int | float,
}


class MetricsLog:
    """The metrics entries of a run: dicts of `step`, `epoch`, `split/metric`.

    Nothing is written before the first entry is added.

    Args:
        workdir: Path of the run.
        best_metric: Evaluation metric that selects the best entry: the lowest
            loss, or the highest value of another metric.
        last_step: Entries of later steps are dropped: a killed run lost these
            steps and repeats them. None keeps all entries.
    """

    def __init__(self, workdir, best_metric, last_step=None):
        self.events_folder = workdir / "events"
        self.best_key = f"eval/{best_metric}"
        self.path = workdir / "metrics.jsonl"
        self.summary_path = workdir / "summary.json"
        entries, faults = read_metrics(self.path)
        for fault in faults:
            logging.warning("%s.", fault)
        self.entries = [
            entry
            for entry in entries
            if last_step is None or entry["step"] <= last_step
        ]
        self._events = None
        self._has_warned = False

    def drop(self, is_unwanted):
        """Drops the entries for which `is_unwanted(entry)` is true."""
        self.entries = [e for e in self.entries if not is_unwanted(e)]

    def add(self, step, epoch, metrics):
        """Writes an entry. Values that are not finite become null in JSON."""
        metrics = {
            name: value if math.isfinite(value) else None
            for name, value in metrics.items()
        }
        entry = {"step": step, "epoch": round(epoch, 4), **metrics}
        if self._events is None:
            self._start()
        self.entries.append(entry)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        import tensorflow as tf

        with self._events.as_default(step=step):
            for name, value in metrics.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._events.flush()

    def series(self, key):
        """Returns the steps and values of the entries that have a value."""
        entries = [e for e in self.entries if e.get(key) is not None]
        return [e["step"] for e in entries], [e[key] for e in entries]

    def has_evaluation(self, step):
        """Returns True if the step has been evaluated."""
        return any(
            entry["step"] == step and self.best_key in entry
            for entry in self.entries
        )

    def last(self):
        """Returns the newest finite value of every key."""
        return {
            key: value
            for entry in self.entries
            for key, value in entry.items()
            if value is not None
        }

    def best(self):
        """Returns the entry of the best evaluation; empty without any."""
        entries = [e for e in self.entries if e.get(self.best_key) is not None]
        sign = -1 if self.best_key == "eval/loss" else 1
        return max(entries, key=lambda e: sign * e[self.best_key], default={})

    def earlier_summary(self):
        """Returns the content of summary.json; empty if it does not exist."""
        summary, faults = read_summary(self.summary_path)
        for fault in faults:
            if not self._has_warned:
                logging.warning("%s.", fault)
            self._has_warned = True
        return summary

    def reopen(self):
        """Marks a finished run as unfinished in summary.json."""
        summary = self.earlier_summary()
        if summary.pop("seconds", None) is not None:
            self._write_summary(summary)

    def summarize(self, metadata):
        """Writes summary.json and returns its content.

        Values of an earlier summary stay unless `metadata` replaces them.
        """
        newest = {"last": self.last(), "best": self.best()}
        summary = {**self.earlier_summary(), **newest, **metadata}
        self._write_summary(summary)
        return summary

    def _start(self):
        """Writes the entries that are kept and opens the event file."""
        import tensorflow as tf

        lines = [json.dumps(entry) + "\n" for entry in self.entries]
        atomic_io.write_text(self.path, "".join(lines))
        self._events = tf.summary.create_file_writer(str(self.events_folder))

    def _write_summary(self, summary):
        text = json.dumps(summary, indent=2) + "\n"
        atomic_io.write_text(self.summary_path, text)


def read_metrics(path):
    """Reads metrics.jsonl without its damaged lines.

    An incomplete last line is left out silently: a kill interrupted it, and its
    step is trained again.

    Args:
        path: Path of the file, which need not exist.

    Returns:
        `(entries, faults)`: a list of dicts, and a sentence about each damaged
        line.

    Raises:
        OSError: if the file cannot be read.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    entries, faults = [], []
    for number, line in enumerate(lines, 1):
        entry = _parse_json(line)
        if is_metrics_entry(entry):
            entries.append(entry)
        elif line.strip() and number < len(lines):
            faults.append(f"{path}: line {number} is damaged and left out")
    return entries, faults


def read_summary(path):
    """Reads summary.json.

    Args:
        path: Path of the file, which need not exist.

    Returns:
        `(summary, faults)`: a dict, empty if the file does not exist or is
        damaged, and a list with at most one sentence about damage.

    Raises:
        OSError: if the file cannot be read.
    """
    if not path.exists():
        return {}, []
    summary = _parse_json(path.read_bytes())
    is_valid = isinstance(summary, dict) and all(
        isinstance(summary[name], expected)
        for name, expected in _SUMMARY_TYPES.items()
        if name in summary
    )
    is_valid = is_valid and all(
        isinstance(text, str)
        for name in ("class_names", "bad_images")
        for text in summary.get(name, ())
    )
    if not is_valid or not _are_numbers(summary.get("last", {})):
        return {}, [f"{path} is damaged and ignored"]
    return summary, []


@contextlib.contextmanager
def skip_if_damaged(path):
    """Logs a warning instead of raising if a JSON file has unexpected content.

    Args:
        path: Path of the file that is read and shown inside the context.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ):
        logging.warning("%s is damaged: the report leaves it out.", path)


def is_metrics_entry(value):
    """Returns True if a JSON value is an entry of metrics.jsonl."""
    return (
        isinstance(value, dict)
        and type(value.get("step")) is int
        and value.get("epoch") is not None
        and _are_numbers(value)
    )


def _are_numbers(metrics):
    """Returns True for numbers, and null for values that were not finite."""
    return all(
        value is None or type(value) in (int, float)
        for value in metrics.values()
    )


def _parse_json(data):
    """Returns the JSON value, or None if the data is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
