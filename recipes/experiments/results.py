"""Metrics of runs, averaged over seeds, in tables."""

import dataclasses
import json
import math
import statistics

import pandas as pd

from recipes.config.setting import fields_that_affect_result
from recipes.experiments.grid import format_flag


def measure(run, program):
    """Computes the metrics of a run: a dict with None for missing ones."""
    losses = [row["train/loss"] for row in run.entries if "train/loss" in row]
    last = pd.Series(losses[-math.ceil(len(losses) / 10) :], dtype=float)
    names = ("peak_memory_bytes", "parameters", "seconds")
    return {
        **{m.key: run.final(f"eval/{m.key}") for m in program.metrics},
        "best": run.best(f"eval/{program.score.key}"),
        "training_loss": last.mean() if last.count() else None,
        "seconds_per_step": run.seconds_per_step,
        **{name: run.summary.get(name) for name in names},
    }


def label_settings(settings):
    """Labels dicts of settings by the flags that differ; "" without any."""
    flags = [{n: format_flag(n, v) for n, v in s.items()} for s in settings]
    names = dict.fromkeys(name for each in flags for name in each)
    names = [n for n in names if len({each.get(n) for each in flags}) > 1]
    return [" ".join(each[n] for n in names if n in each) for each in flags]


def group_runs(runs):
    """Groups runs whose settings differ in nothing that affects the metrics.

    Args:
        runs: List of `RecordedRun` of one program.

    Returns:
        Dict from a label, the flags that differ, to a list of `RecordedRun`.
    """
    names = set(fields_that_affect_result(runs[0].config_class)) - {"seed"}
    settings = [
        {name: value for name, value in run.config.items() if name in names}
        for run in runs
    ]
    groups = {}
    for label, run in zip(label_settings(settings), runs, strict=True):
        groups.setdefault(label or "all runs", []).append(run)
    return groups


def format_mean(values, digits=2, factor=1):
    """Formats mean ± sample standard deviation, such as `91.23 ± 0.41`.

    Args:
        values: Numbers; None and NaN are left out and counted.
        digits: Number of decimals. Without any, there is no deviation.
        factor: The numbers are multiplied by it.
    """
    every = pd.Series(values, dtype=float)
    found = every.dropna()
    if found.empty:
        return ""
    text = f"{statistics.fmean(found) * factor:,.{digits}f}"
    if len(found) > 1 and digits:
        text += f" ± {found.std() * factor:,.{digits}f}"
    if len(found) < len(every):
        text += f" ({len(found)} of {len(every)})"
    return text


def summarize(groups, program):
    """Makes a data frame of texts with one row per group.

    Unfinished runs count only in groups without a finished one.

    Args:
        groups: Dict from label to a list of `RecordedRun`.
        program: The `Program` of the runs.
    """
    rows = {}
    for label, runs in groups.items():
        done = [run for run in runs if run.is_finished]
        count = f"{len(done)} of " if len(done) < len(runs) else ""
        frame = pd.DataFrame([measure(run, program) for run in done or runs])
        rows[label] = {"seeds": f"{count}{len(runs)}"}
        for m in program.columns:
            text = format_mean(frame[m.key], m.digits, m.factor)
            rows[label][m.heading] = text
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.loc[:, (table != "").any()]


@dataclasses.dataclass(frozen=True)
class Table:
    """Results by the setting along x and by all other settings.

    Attributes:
        x: Name of the setting along x, or None.
        frame: Data frame of the results with additional columns `row` (the
            label) and `column` (the value of x; empty without x).
        rows: All labels, in the order of the runs.
        columns: All values of x; numbers in ascending order.
    """

    x: str | None
    frame: pd.DataFrame
    rows: list
    columns: list

    def get(self, row, column, key):
        """Returns the series of a metric's values, without missing ones."""
        frame = self.frame
        found = frame[(frame["row"] == row) & (frame["column"] == column)]
        return found[key].dropna() if key in found else pd.Series(dtype=float)


def make_table(results, x=None):
    """Makes the `Table` of the `runs` of results.json.

    Args:
        results: List of dicts with `settings`, and the metrics of ended runs.
        x: Name of the setting along x; None takes the first setting that has
            several numbers as values, if any.
    """
    settings = [result["settings"] for result in results]
    x = x or _choose_x(settings)
    others = [
        {n: v for n, v in each.items() if n not in ("seed", x)}
        for each in settings
    ]
    rows = [
        # Where no flag differs, the first one.
        label or next((format_flag(*f) for f in each.items()), "all runs")
        for label, each in zip(label_settings(others), others, strict=True)
    ]
    columns = ["" if x is None else each.get(x) for each in settings]
    # Neither a dict, such as norm arguments, nor None can be looked up.
    columns = [json.dumps(c) if isinstance(c, dict) else c for c in columns]
    columns = ["none" if column is None else column for column in columns]
    frame = pd.DataFrame(results).assign(row=rows, column=columns)
    columns = list(dict.fromkeys(columns))
    if all(map(_is_number, columns)):
        columns.sort()
    return Table(x, frame, list(dict.fromkeys(rows)), columns)


def _choose_x(settings):
    for name in settings[0]:
        values = [each.get(name) for each in settings]
        if name != "seed" and all(map(_is_number, values)):
            if len(set(values)) > 1:
                return name
    return None


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def pivot(table, metric):
    """Makes a data frame of texts, mean ± sample standard deviation."""
    cells = {}
    for column in table.columns:
        head = metric.heading
        if table.x is not None:
            head = f"`{format_flag(table.x, column)}`"
        values = [table.get(row, column, metric.key) for row in table.rows]
        cells[head] = [
            format_mean(each, metric.digits, metric.factor) for each in values
        ]
    return pd.DataFrame(cells, index=table.rows)


def format_markdown(frame, corner=""):
    """Formats a data frame of texts; its index is formatted as code."""
    lines = [[corner, *frame.columns], ["---", *["---:"] * len(frame.columns)]]
    lines += [[f"`{label}`", *row] for label, *row in frame.itertuples()]
    # An unescaped bar would end the cell.
    lines = [[text.replace("|", "\\|") for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
