"""What a run writes down: metrics.jsonl, TensorBoard events, summary.json."""

import json
import math

import tensorflow as tf
from absl import logging

from recipes import atomic_io
from recipes.run_dir import run_files


class Records:
    """The rows of a run, each `step`, `epoch` and `split/metric` values.

    Args:
        workdir: Path of the run.
        best_metric: The evaluation that counts: the lowest loss, or the
            highest of another.
        last_step: Rows after that step are dropped: they are of a part of the
            run that was lost with a kill and will be run again. None keeps all.

    Nothing is written before there is something to add.
    """

    def __init__(self, workdir, best_metric, last_step=None):
        self.events_folder = workdir / "events"
        self.best_by = f"eval/{best_metric}"
        self.path = workdir / "metrics.jsonl"
        self.summary_path = workdir / "summary.json"
        rows, faults = run_files.read_rows(self.path)
        for fault in faults:
            logging.warning("%s.", fault)
        self.rows = [
            row for row in rows if last_step is None or row["step"] <= last_step
        ]
        self._events = None
        self._is_named = False

    def drop(self, is_unwanted):
        """Forgets the rows for which `is_unwanted(row)` is true."""
        self.rows = [row for row in self.rows if not is_unwanted(row)]

    def _start(self):
        """Writes the rows that stay, and opens the events."""
        lines = [json.dumps(row) + "\n" for row in self.rows]
        atomic_io.write_text(self.path, "".join(lines))
        self._events = tf.summary.create_file_writer(str(self.events_folder))

    def add(self, step, epoch, values):
        """Writes a row; a value that is not finite becomes null, as in JSON."""
        values = {
            name: value if math.isfinite(value) else None
            for name, value in values.items()
        }
        row = {"step": step, "epoch": round(epoch, 4), **values}
        if self._events is None:
            self._start()
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self._events.as_default(step=step):
            for name, value in values.items():
                if value is not None:
                    tf.summary.scalar(name, value)
        self._events.flush()

    def series(self, key):
        """Steps and values of the rows that hold a value of the key."""
        rows = [row for row in self.rows if row.get(key) is not None]
        return [row["step"] for row in rows], [row[key] for row in rows]

    def evaluated(self, step):
        """Whether there is an evaluation of the step."""
        return any(
            row["step"] == step and self.best_by in row for row in self.rows
        )

    def last(self):
        """The newest value of every key, but for those that are not finite."""
        return {
            key: value
            for row in self.rows
            for key, value in row.items()
            if value is not None
        }

    def best(self):
        """The row of the best evaluation; empty without an evaluation."""
        rows = [row for row in self.rows if row.get(self.best_by) is not None]
        sign = -1 if self.best_by == "eval/loss" else 1
        return max(rows, key=lambda r: sign * r[self.best_by], default={})

    def earlier_summary(self):
        """What summary.json holds by now; empty where there is none."""
        summary, faults = run_files.read_summary(self.summary_path)
        for fault in faults:
            if not self._is_named:
                logging.warning("%s.", fault)
            self._is_named = True
        return summary

    def reopen(self):
        """Says in summary.json that the run, if it had ended, goes on."""
        summary = self.earlier_summary()
        if summary.pop("seconds", None) is not None:
            self._write_summary(summary)

    def summarize(self, facts):
        """Writes summary.json and returns what it holds.

        Facts of an earlier part of the run stay, unless given anew.
        """
        newest = {"last": self.last(), "best": self.best()}
        summary = {**self.earlier_summary(), **newest, **facts}
        self._write_summary(summary)
        return summary

    def _write_summary(self, summary):
        text = json.dumps(summary, indent=2) + "\n"
        atomic_io.write_text(self.summary_path, text)
