"""Tables of a sweep's results: one row per label, one column per value of x."""

import dataclasses
import json

import pandas as pd

from recipes.experiments.aggregate import format_mean
from recipes.experiments.aggregate import join_flags
from recipes.experiments.grid import format_flag


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
        """Returns the series of a metric's values, NaN for missing ones."""
        frame = self.frame
        found = frame[(frame["row"] == row) & (frame["column"] == column)]
        return found[key].dropna() if key in found else pd.Series(dtype=float)


def make_table(results, x=None):
    """Makes the table of the `runs` of results.json.

    Args:
        results: List of dicts with `settings`, and the metrics of ended runs.
        x: Name of the setting along x; None takes the first setting that has
            several numbers as values, if any.
    """
    settings = [result["settings"] for result in results]
    x = x or _choose_x(settings)
    flags = [
        {n: format_flag(n, v) for n, v in each.items() if n not in ("seed", x)}
        for each in settings
    ]
    frame = pd.DataFrame(flags, index=range(len(flags)))
    varied = frame.loc[:, frame.nunique(dropna=False) > 1]
    labels = join_flags(varied)
    first = frame.iloc[:, 0] if len(frame.columns) else labels
    labels = labels.where(labels != "", first).replace("", "all runs")
    columns = [_get_value(each, x) for each in settings]
    frame = pd.DataFrame(results).assign(row=labels, column=columns)
    columns = list(dict.fromkeys(columns))
    if all(map(is_number, columns)):
        columns.sort()
    return Table(x, frame, list(dict.fromkeys(labels)), columns)


def pivot(table, metric):
    """Makes a data frame of texts, mean ± sample standard deviation."""
    texts = {
        _name_column(table, metric, column): [
            format_mean(
                table.get(row, column, metric.key),
                metric.digits,
                metric.factor,
            )
            for row in table.rows
        ]
        for column in table.columns
    }
    return pd.DataFrame(texts, index=table.rows)


def format_markdown(frame, corner=""):
    """Formats a data frame of texts; its index is formatted as code."""
    lines = [[corner, *frame.columns], ["---", *["---:"] * len(frame.columns)]]
    lines += [[f"`{label}`", *row] for label, *row in frame.itertuples()]
    return "\n".join(
        # An unescaped bar would end the cell.
        "| " + " | ".join(text.replace("|", "\\|") for text in line) + " |"
        for line in lines
    )


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _choose_x(settings):
    for name in settings[0]:
        values = [each.get(name) for each in settings]
        if name != "seed" and all(map(is_number, values)):
            if len(set(values)) > 1:
                return name
    return None


def _get_value(settings, x):
    value = "" if x is None else settings.get(x)
    # Norm arguments are a dict, which cannot be a key.
    return json.dumps(value) if isinstance(value, dict) else value


def _name_column(table, metric, column):
    if table.x is None:
        return metric.heading
    return f"`{format_flag(table.x, column)}`"
