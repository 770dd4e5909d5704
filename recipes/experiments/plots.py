"""Figures of runs: curves over the epochs, and a sweep's table."""

import io
import math
import textwrap

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from recipes import atomic_io
from recipes.experiments.results_table import is_number

# Okabe and Ito's colors, which color-blind readers can tell apart, with gray
# instead of yellow. After these eight, the line style changes.
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#888888",
)
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX"
# Training losses are averaged over this many equal parts of the longest run.
NUM_PARTS = 50
# Curves with a wider range are drawn on a logarithmic scale.
WIDE = 30
# Values along x that are closer than this part of their mean distance are drawn
# at equal distances, so that their labels do not overlap.
CLOSE = 0.35


def draw_curves(groups, program):
    """Draws the training loss and the score over the epochs.

    Lines are means over the runs of a group as far as all of them have come,
    bands reach from the lowest to the highest, and thin lines are single runs.

    Args:
        groups: Dict from label to a list of `Run`.
        program: The `Program` of the runs.
    """
    every = [run for runs in groups.values() for run in runs]
    width = max(run.epoch for run in every) / NUM_PARTS
    name, key = program.score.heading, f"eval/{program.score.key}"
    if program.shows_error:
        name = name.replace("top-1", "error")
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (label, runs) in enumerate(groups.items()):
        seeds = "seed" if len(runs) == 1 else "seeds"
        looks = {**_get_style(i), "label": f"{label} ({len(runs)} {seeds})"}
        losses = [average_losses(run, width) for run in runs]
        _draw_group(left, losses, looks)
        scores = [get_series(run, key) * program.score.factor for run in runs]
        if program.shows_error:
            scores = [program.score.factor - each for each in scores]
        _draw_group(right, scores, looks)
    _finish_panel(left, "training loss")
    _finish_panel(right, name)
    _add_legend(figure, right)
    return figure


def draw_table(table, metric):
    """Draws means and sample standard deviations over seeds.

    Args:
        table: A `results_table.Table`.
        metric: The `Metric` to draw.
    """
    if len(table.columns) < 2:
        return _draw_rows(table, metric)
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    places = place_columns(table.columns)
    shifts = np.linspace(-0.5, 0.5, len(table.rows) + 2)[1:-1]
    shifts *= min(0.035 * len(table.rows), 0.5)
    for i, row in enumerate(table.rows):
        means, bars = _get_points(table, metric, [row], table.columns)
        looks = {**_get_style(i), "markersize": 5, "capsize": 3, "label": row}
        if not all(map(is_number, table.columns)):
            looks["linestyle"] = ""  # There is nothing between two words.
        axes.errorbar(places + shifts[i], means, bars, **looks)
    names = [f"{c:g}" if is_number(c) else str(c) for c in table.columns]
    axes.set_xticks(places, [_wrap(name, 16) for name in names])
    axes.set_xlabel(f"--{table.x}")
    axes.set_ylabel(metric.heading)
    _tidy(axes)
    _add_legend(figure, axes)
    return figure


def _draw_rows(table, metric):
    labels = [_wrap(row, 44) for row in table.rows]
    num_lines = sum(label.count("\n") + 1 for label in labels)
    height = 1.2 + 0.15 * len(labels) + 0.19 * num_lines
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    means, bars = _get_points(table, metric, table.rows, table.columns)
    axes.errorbar(
        means,
        range(len(labels)),
        xerr=bars,
        fmt="o",
        capsize=3,
        color=COLORS[0],
    )
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(metric.heading)
    _tidy(axes)
    return figure


def _get_points(table, metric, rows, columns):
    """Computes means and deviations, NaN without runs or with only one."""
    values = [table.get(r, c, metric.key) for r in rows for c in columns]
    means = np.array([each.mean() for each in values]) * metric.factor
    return means, np.array([each.std() for each in values]) * metric.factor


def place_columns(columns):
    """Returns the places of values along x, 1 apart on average."""
    even = np.arange(len(columns))
    if not all(map(is_number, columns)):
        return even
    places = np.array(columns, float)
    if places[0] > 0 and places[-1] >= 4 * places[0]:
        places = np.log2(places)
    places *= (len(columns) - 1) / (places[-1] - places[0])
    return places if np.diff(places).min() >= CLOSE else even


def get_series(run, key):
    """Returns the values of a key as a series over the epochs."""
    epochs, values = run.series(key)
    series = pd.Series(values, pd.Index(epochs, dtype=float), dtype=float)
    return series.groupby(level=0).last()  # --mode=eval repeats an epoch.


def average_losses(run, width):
    """Averages training losses over parts of `width` epochs.

    Returns:
        Series over the ends of the parts, in epochs.
    """
    losses = get_series(run, "train/loss")
    # Epochs are rounded to four digits: one that ends a part belongs to it.
    ends = np.ceil(np.round(losses.index / (width or 1), 3)) * width
    return losses.groupby(ends).mean()


def _draw_group(axes, curves, looks):
    frame = pd.concat(curves, axis=1)
    common = frame.dropna()
    if len(curves) > 1:
        single = {"color": looks["color"], "linewidth": 0.8, "alpha": 0.5}
        for curve in curves:
            axes.plot(curve, **single)
    every = max(len(common) // 20, 1)
    axes.plot(common.mean(axis=1), markevery=every, **looks)
    axes.fill_between(
        common.index,
        common.min(axis=1),
        common.max(axis=1),
        color=looks["color"],
        alpha=0.18,
        linewidth=0,
    )


def _get_style(i):
    return {
        "color": COLORS[i % len(COLORS)],
        "linestyle": STYLES[i // len(COLORS) % len(STYLES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.6,
    }


def _finish_panel(axes, name):
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    positive = values[values > 0]
    if not len(values):
        middle = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, "no values yet", **middle)
    if len(positive) and positive.max() > WIDE * positive.min():
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / 1.3, positive.max() * 1.3)
        decades = math.log10(positive.max() / positive.min())
        subs = (1, 2, 5) if decades < 3 else (1,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(ticker.NullLocator())
        name += ", log scale"
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.set_xlim(left=0)
    _tidy(axes)


def _tidy(axes):
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _wrap(text, width):
    # A dollar sign would start a formula.
    text = textwrap.fill(text, width, break_on_hyphens=False)
    return text.replace("$", r"\$")


def _add_legend(figure, axes):
    """Adds the labels below the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    room = 12 * figure.get_figwidth()
    labels = [_wrap(label, round(room) - 8) for label in labels]
    lines = [line for label in labels for line in label.split("\n")]
    columns = max(int(room / (max(map(len, lines)) + 8)), 1)
    columns = min(columns, 4, len(labels))
    height = 0.2 * math.ceil(len(lines) / columns) + 0.1
    figure.set_figheight(figure.get_figheight() + height)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=9,
        frameon=False,
        handlelength=3,
    )


def format_svg(figure):
    """Formats a figure as an SVG element of an HTML page."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing)
    return text.getvalue()[text.getvalue().index("<svg") :]


def save(figure, path, dpi=130):
    """Writes a figure to a file."""
    with atomic_io.file(path) as partial:
        figure.savefig(partial, dpi=dpi, metadata={"Software": None})
