"""Figures of runs: curves over the epochs, and a sweep's table."""

import textwrap

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

from recipes import atomic_io

# Okabe and Ito's colors, which color-blind readers can tell apart, with gray
# instead of yellow. After these eight, the line style changes.
COLORS = (
    "#0072b2 #d55e00 #009e73 #cc79a7 #000000 #e69f00 #56b4e9 #888888"
).split()
CYCLE = cycler(linestyle=["-", "--", ":", "-."]) * cycler(color=COLORS)
# Training losses are averaged over this many equal parts of the longest run.
NUM_PARTS = 50
# Curves with a wider range are drawn on a logarithmic scale.
WIDE = 30


def draw_curves(groups, program):
    """Draws the training loss and the score over the epochs.

    Lines are means over the runs of a group as far as all of them have come,
    and bands reach from the lowest to the highest.

    Args:
        groups: Dict from label to a list of `RecordedRun`.
        program: The `Program` of the runs.
    """
    score, name = program.score, program.score.heading
    if program.shows_error:
        name = name.replace("top-1", "error")
    width = max(r.epoch for runs in groups.values() for r in runs) / NUM_PARTS

    def get_scores(run):
        scores = get_series(run, f"eval/{score.key}")
        return score.factor * (1 - scores if program.shows_error else scores)

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, heading, get_curve in zip(
        figure.subplots(1, 2),
        ("training loss", name),
        (lambda run: average_losses(run, width), get_scores),
        strict=True,
    ):
        axes.set_prop_cycle(CYCLE)
        for group, runs in groups.items():
            curves = pd.concat([get_curve(run) for run in runs], axis=1)
            curves = curves.interpolate("index", limit_area="inside").dropna()
            seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
            label = f"{group} ({seeds})"
            axes.plot(curves.mean(axis=1), marker=".", label=label)
            low, high = curves.min(axis=1), curves.max(axis=1)
            axes.fill_between(curves.index, low, high, alpha=0.2, linewidth=0)
        values = np.concatenate([line.get_ydata() for line in axes.lines])
        values = values[values > 0]
        if values.size and values.max() > WIDE * values.min():
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=heading)
    _finish(figure)
    return figure


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


def draw_table(table, metric):
    """Draws means and sample standard deviations over seeds.

    Args:
        table: A `results.Table`.
        metric: The `Metric` to draw.
    """
    means, deviations = (
        [
            [
                metric.factor * function(table.get(row, column, metric.key))
                for column in table.columns
            ]
            for row in table.rows
        ]
        for function in (pd.Series.mean, pd.Series.std)
    )
    height = 4 if table.x is not None else 1 + 0.4 * len(table.rows)
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(CYCLE)
    if table.x is None:
        labels = [_wrap(row, 44) for row in table.rows]
        means, deviations = np.ravel(means), np.ravel(deviations)
        axes.errorbar(means, labels, xerr=deviations, fmt="o", capsize=3)
        axes.set(xlabel=metric.heading, ylim=(len(labels) - 0.5, -0.5))
    else:
        columns = [_wrap(str(column), 16) for column in table.columns]
        for row, *points in zip(table.rows, means, deviations, strict=True):
            axes.errorbar(columns, *points, marker="o", capsize=3, label=row)
        axes.set(xlabel=f"--{table.x}", ylabel=metric.heading)
    _finish(figure)
    return figure


def save(figure, path, dpi=130):
    """Writes a figure to a file."""
    with atomic_io.atomic_file(path) as partial:
        figure.savefig(partial, dpi=dpi, metadata={"Software": None})


def _wrap(text, width):
    # A dollar sign would start a formula.
    text = textwrap.fill(text, width, break_on_hyphens=False)
    return text.replace("$", r"\$")


def _finish(figure):
    """Adds grid lines, and the labels below the axes, one per line."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    labels = [_wrap(text, int(11 * figure.get_figwidth())) for text in labels]
    num_lines = sum(text.count("\n") + 1 for text in labels)
    figure.set_figheight(figure.get_figheight() + 0.2 * num_lines)
    place = "outside lower center"
    figure.legend(handles, labels, loc=place, fontsize=9, frameon=False)
