"""Groups of runs as curves over the epochs, one colour and line style each."""

import io
import math
import statistics
import textwrap

from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Okabe and Ito's colours, which colour-blind readers tell apart, grey in the
# place of yellow, which is hard to see on white. Past these eight the line
# style changes, and markers repeat at another period.
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
# The loss of a single step is noisy: it is shown as means over that many equal
# parts of the longest run, the same parts for all runs.
NUM_PARTS = 50
NUM_MARKERS = 20
# Values that span more than this factor are shown on a logarithmic scale.
WIDE = 30


def draw(groups):
    """Training loss and test error of groups, as a figure.

    Lines are means over the runs of a group, as far as all of them have come;
    bands reach from the lowest to the highest. Beyond that, thin lines are
    single runs.

    Args:
        groups: List of `groups.Group`.
    """
    part = max(run.epoch for group in groups for run in group.runs) / NUM_PARTS
    figure = Figure(figsize=(10, 4.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    _panel(left, "training loss", groups, lambda run: losses(run, part))
    _panel(right, "test error, %", groups, errors)
    _legend(figure, groups)
    return figure


def svg(figure):
    """A figure as an element of an HTML page."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing)
    return text.getvalue()[text.getvalue().index("<svg") :]


def losses(run, part):
    """Mean training losses of a run over parts of that many epochs.

    Returns:
        Dict from the number of the part to mean epoch and mean loss.
    """
    parts = {}
    for epoch, loss in zip(*run.series("train/loss"), strict=True):
        # Epochs are written with four digits: one that ends a part is of it.
        number = max(math.ceil(round(epoch / part, 3)) - 1, 0) if part else 0
        parts.setdefault(number, []).append((epoch, loss))
    last = max(parts, default=0)
    is_cut = not run.is_finished and run.epoch < (last + 1 - 1e-3) * part
    if is_cut and len(parts) > 1:
        del parts[last]
    return {
        number: tuple(map(statistics.fmean, zip(*points, strict=True)))
        for number, points in parts.items()
    }


def errors(run):
    """Test errors of a run in percent.

    Returns:
        Dict from the epoch to epoch and error.
    """
    accuracies = zip(*run.series("eval/accuracy"), strict=True)
    return {epoch: (epoch, 100 - 100 * value) for epoch, value in accuracies}


def together(curves):
    """Curves as one, as far as they go together.

    Args:
        curves: List of dicts from a place to epoch and value.

    Returns:
        List of epoch, mean, lowest and highest value at the places that all
        curves have; list of what each curve has beyond, as epochs and values.
    """
    common = sorted(set.intersection(*map(set, curves)))
    middle = []
    for place in common:
        points = [curve[place] for curve in curves]
        epochs, values = zip(*points, strict=True)
        mean = statistics.fmean(values)
        middle.append(
            (statistics.fmean(epochs), mean, min(values), max(values))
        )
    end = common[-1] if common else -math.inf
    beyond = [
        [curve[place] for place in sorted(curve) if place >= end]
        for curve in curves
    ]
    # The first point there is of the middle; alone it is no curve.
    fewest = 2 if common else 1
    return middle, [points for points in beyond if len(points) >= fewest]


def _panel(axes, name, groups, points):
    shown = []
    for i, group in enumerate(groups):
        curves = [curve for curve in map(points, group.runs) if curve]
        if curves:
            _plot(axes, i, *together(curves))
        shown += [value for curve in curves for _, value in curve.values()]
    if not shown:
        axes.text(0.5, 0.5, "no values yet", ha="center", va="center")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name + _scale(axes, shown))
    axes.set_xlim(left=0)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _plot(axes, i, middle, beyond):
    looks = look(i)
    if middle:
        epochs, means, lows, highs = zip(*middle, strict=True)
        every = -(-len(middle) // NUM_MARKERS)
        axes.plot(epochs, means, markevery=every, **looks)
        axes.fill_between(
            epochs, lows, highs, color=looks["color"], alpha=0.18, linewidth=0
        )
    for points in beyond:
        single = {**looks, "linewidth": 0.8, "alpha": 0.6, "marker": "."}
        axes.plot(*zip(*points, strict=True), **single)


def look(i):
    """The line of the i-th of several groups, for `plot`."""
    return {
        "color": COLORS[i % len(COLORS)],
        "linestyle": STYLES[i // len(COLORS) % len(STYLES)],
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.6,
    }


def _scale(axes, values):
    """Sets the scale that suits the values; what to say of it."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) <= WIDE * min(positive):
        axes.set_ylim(bottom=0)
        return ""
    axes.set_yscale("log")
    axes.set_ylim(min(positive) / 1.3, max(positive) * 1.3)
    decades = math.log10(max(positive) / min(positive))
    subs = (1, 2, 5) if decades < 3 else (1,)
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    is_zero = len(positive) < len(values)
    return ", log scale" + (" (0 lies below it)" if is_zero else "")


def _legend(figure, groups):
    """The names below the panels, in as many columns as they leave room for."""
    labels = [
        textwrap.fill(
            f"{group.label} ({len(group.runs)} "
            f"{'seed' if len(group.runs) == 1 else 'seeds'})",
            110,
            break_on_hyphens=False,
        )
        for group in groups
    ]
    longest = max(len(line) for text in labels for line in text.split("\n"))
    columns = min(max(120 // (longest + 8), 1), 4, len(labels))
    rows = sum(text.count("\n") + 1 for text in labels) / columns
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(rows))
    figure.legend(
        [Line2D([], [], **look(i)) for i in range(len(groups))],
        # A dollar sign would start a formula.
        [text.replace("$", r"\$") for text in labels],
        loc="outside lower center",
        ncols=columns,
        fontsize=9,
        frameon=False,
        handlelength=3,
    )
