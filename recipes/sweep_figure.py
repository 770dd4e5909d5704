"""What the runs of a sweep came to, as a figure."""

import math
import textwrap

from matplotlib.figure import Figure

from recipes import curves
from recipes.sweep_table import ACCURACY

# Values along x that span more than this factor are on a logarithmic scale.
WIDE = 4
# Rows are moved apart along x by that share of the distance of two values, so
# that error bars do not hide each other.
APART = 0.035


def draw(table, value=ACCURACY):
    """The figure of a `sweep_table.Table`.

    Points are means over seeds, bars the sample standard deviation.
    """
    if table.x is None or len(table.columns) < 2:
        return _rows(table, value)
    return _lines(table, value)


def _lines(table, value):
    key, heading, factor, _ = value
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.subplots()
    places = _places(table.columns)
    for i, row in enumerate(table.rows):
        shift = APART * (i - (len(table.rows) - 1) / 2)
        points = [
            (place + shift, spread)
            for place, column in zip(places, table.columns, strict=True)
            if (spread := table.spread(row, column, key)) is not None
        ]
        if points:
            axes.errorbar(
                [place for place, _ in points],
                [spread.mean * factor for _, spread in points],
                [(spread.deviation or 0) * factor for _, spread in points],
                label=textwrap.fill(row, 60, break_on_hyphens=False),
                capsize=2,
                **curves.look(i),
            )
    axes.set_xticks(places, [str(column) for column in table.columns])
    axes.set_xlabel(f"--{table.x}")
    axes.set_ylabel(heading)
    _tidy(axes)
    figure.legend(
        loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    return figure


def _places(columns):
    """Where the values are along x, neighbours about 1 apart."""
    if not all(isinstance(c, (int, float)) for c in columns):
        return list(range(len(columns)))
    if min(columns) > 0 and max(columns) >= WIDE * min(columns):
        return [math.log2(column) for column in columns]
    width = (max(columns) - min(columns)) / (len(columns) - 1)
    return [column / width for column in columns]


def _rows(table, value):
    key, heading, factor, _ = value
    height = 1.2 + 0.34 * len(table.rows)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(table.rows):
        spread = table.spread(row, table.columns[0], key)
        if spread is not None:
            deviation = (spread.deviation or 0) * factor
            axes.errorbar(
                spread.mean * factor,
                i,
                xerr=deviation,
                color=curves.COLORS[0],
                marker="o",
                capsize=3,
            )
    axes.set_yticks(range(len(table.rows)), table.rows, fontsize=9)
    axes.set_ylim(len(table.rows) - 0.5, -0.5)
    axes.set_xlabel(heading)
    _tidy(axes)
    return figure


def _tidy(axes):
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
