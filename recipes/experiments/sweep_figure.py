"""What the runs of a sweep came to, as a figure."""

import math
import textwrap

from matplotlib.figure import Figure

from recipes.experiments import plots
from recipes.experiments.results_table import ACCURACY
from recipes.experiments.results_table import is_number

# Values along x that span more than this factor are on a logarithmic scale.
WIDE = 4
# Neighbours along x that are nearer than this share of the mean distance would
# have no room for their values: then all are equally far apart.
NEAR = 0.35
# Rows are moved apart along x by that share of the distance of two values, so
# that error bars do not hide each other; all of them by a share of it, too.
APART, ALL_APART = 0.035, 0.5
# Letters of a line of a label, in the legend and on the axis.
LEGEND_WIDTH, AXIS_WIDTH = 100, 44


def draw(table, value=ACCURACY):
    """The figure of a `sweep_table.Table`.

    Points are means over seeds, bars the sample standard deviation.
    """
    if table.x is None or len(table.columns) < 2:
        return _rows(table, value)
    return _lines(table, value)


def _lines(table, value):
    key, heading, factor, _ = value
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    places = _places(table.columns)
    apart = min(APART, ALL_APART / len(table.rows))
    # There is nothing between two words.
    line = {} if all(map(is_number, table.columns)) else {"linestyle": ""}
    has_bars = False
    for i, row in enumerate(table.rows):
        shift = apart * (i - (len(table.rows) - 1) / 2)
        points = [
            (place + shift, *_point(spread, factor))
            for place, column in zip(places, table.columns, strict=True)
            if (spread := table.spread(row, column, key)) is not None
        ]
        if points:
            x, means, bars = zip(*points, strict=True)
            has_bars |= not all(map(math.isnan, bars))
            axes.errorbar(
                x,
                means,
                bars,
                label=_wrap(row, LEGEND_WIDTH),
                **(_look(i) | line),
            )
    axes.set_xticks(places, [_name(column) for column in table.columns])
    axes.set_xlabel(f"--{table.x}")
    axes.set_ylabel(heading)
    _tidy(figure, axes, has_bars)
    _legend(figure, *axes.get_legend_handles_labels())
    return figure


def _places(columns):
    """Where the values are along x, neighbours 1 apart in the mean."""
    even = list(range(len(columns)))
    if not all(map(is_number, columns)):
        return even
    places = list(columns)
    if min(columns) > 0 and max(columns) >= WIDE * min(columns):
        places = [math.log2(column) for column in columns]
    width = (places[-1] - places[0]) / (len(places) - 1)
    places = [place / width for place in places]
    nearest = min(b - a for a, b in zip(places, places[1:], strict=False))
    return even if nearest < NEAR else places


def _rows(table, value):
    key, heading, factor, _ = value
    labels = [_wrap(row, AXIS_WIDTH) for row in table.rows]
    num_lines = sum(label.count("\n") + 1 for label in labels)
    height = 1.2 + 0.15 * len(labels) + 0.19 * num_lines
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    has_bars = False
    for i, row in enumerate(table.rows):
        spread = table.spread(row, table.columns[0], key)
        if spread is not None:
            mean, bar = _point(spread, factor)
            has_bars |= not math.isnan(bar)
            axes.errorbar(mean, i, xerr=bar, **_look(0))
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(heading)
    _tidy(figure, axes, has_bars)
    return figure


def _point(spread, factor):
    """Mean and deviation; of one run, whose spread nobody knows, no number."""
    deviation = math.nan if spread.deviation is None else spread.deviation
    return spread.mean * factor, deviation * factor


def _look(i):
    return {**plots.look(i), "markersize": 5, "capsize": 3}


def _wrap(label, width):
    # A dollar sign would start a formula.
    return textwrap.fill(label, width, break_on_hyphens=False).replace(
        "$", r"\$"
    )


def _name(column):
    text = f"{column:g}" if is_number(column) else str(column)
    return _wrap(text, 16)


def _tidy(figure, axes, has_bars):
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if has_bars:
        axes.set_title(
            "mean and sample standard deviation over seeds",
            fontsize=9,
            loc="left",
        )


def _legend(figure, handles, labels):
    """The rows below the axes, in as many columns as they leave room for."""
    if not labels:
        return
    longest = max(len(line) for text in labels for line in text.split("\n"))
    columns = min(max(106 // (longest + 8), 1), 3, len(labels))
    num_lines = sum(text.count("\n") + 1 for text in labels) / columns
    figure.set_figheight(
        figure.get_figheight() + 0.2 * math.ceil(num_lines) + 0.1
    )
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=9,
        frameon=False,
        handlelength=3,
    )
