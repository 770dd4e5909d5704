"""Groups of runs side by side: the table, what to mind, the page."""

import dataclasses
import math
import pathlib
import shlex
import statistics
import sys
from collections.abc import Callable

import jinja2
from rich.table import Table
from rich.text import Text

from recipes import atomic_io
from recipes.classification.config import Config
from recipes.errors import RecipeError
from recipes.experiments import aggregate as groups_lib
from recipes.experiments import cautions
from recipes.experiments import plots

TEMPLATE = pathlib.Path(__file__).with_name("compare.html.jinja")

# In a terminal: the room that a long label has at least, and between columns.
LABEL_WIDTH = 24
GAP = 2


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        heading: What stands above it, with the unit.
        value: A key, whose newest value is taken, or `f(run)`.
        digits: How many to show after the point.
        factor: What is shown is the value times this.
        has_deviation: Whether to show how runs differ.
    """

    heading: str
    value: str | Callable
    digits: int
    factor: float = 1
    has_deviation: bool = True


def last_losses(run):
    """Mean of the last tenth of the training losses, or None."""
    losses = [row["train/loss"] for row in run.rows if "train/loss" in row]
    num = math.ceil(len(losses) / 10)
    last = [loss for loss in losses[-num:] if loss is not None]
    return statistics.fmean(last) if last else None


def _summary(key):
    return lambda run: run.summary.get(key)


COLUMNS = (
    Column("test top-1, %", "eval/accuracy", 2, 100),
    Column("best top-1, %", lambda run: run.best("eval/accuracy"), 2, 100),
    Column("test loss", "eval/loss", 4),
    Column("training loss", last_losses, 4),
    Column("step, ms", lambda run: run.seconds_per_step, 1, 1000),
    Column("memory, MiB", _summary("peak_memory_bytes"), 0, 2**-20, False),
    Column("parameters", _summary("parameters"), 0, 1, False),
    Column("training, min", _summary("seconds"), 1, 1 / 60),
)
HEADINGS = ("runs", "seeds", *(column.heading for column in COLUMNS))


def rows(groups):
    """The outcome: a list of texts a group, under `HEADINGS`."""
    return [_row(group) for group in groups]


def _row(group):
    seeds = f"{len(group.runs)}"
    finished = [run for run in group.runs if run.is_finished]
    if len(finished) < len(group.runs):
        seeds = f"{len(finished)} of {seeds}"
    counted = dataclasses.replace(group, runs=finished or group.runs)
    return [group.label, seeds, *(_cell(c, counted) for c in COLUMNS)]


def _cell(column, group):
    spread = group.spread(column.value)
    if spread is None:
        return "-"
    if not column.has_deviation:
        spread = groups_lib.spread([spread.mean])
        return spread.text(column.digits, column.factor)
    text = spread.text(column.digits, column.factor)
    if spread.num < len(group.runs):
        text += f" ({spread.num} of {len(group.runs)})"
    return text


def show(groups, console):
    """Prints the outcome, as many columns as there is room for."""
    columns = list(zip(HEADINGS, *rows(groups), strict=True))
    widths = [max(map(len, column)) for column in columns]
    widths[0] = min(widths[0], LABEL_WIDTH)
    num = len(columns)
    while num > 2 and sum(widths[:num]) + GAP * (num - 1) > console.width:
        num -= 1
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column(HEADINGS[0], min_width=widths[0], overflow="fold")
    for heading, width in zip(HEADINGS[1:num], widths[1:num], strict=True):
        table.add_column(heading, min_width=width, justify="right")
    for row in rows(groups):
        table.add_row(*map(Text, row[:num]))
    console.print(table)
    if num < len(columns):
        left_out = "; ".join(HEADINGS[num:])
        console.print(f"no room here, on the page: {left_out}")


def write(groups, folder, faults=()):
    """Writes compare.png and compare.html.

    Args:
        groups: List of `groups.Group`.
        folder: Path to write to.
        faults: Sentences on what could not be read.

    Returns:
        Their paths.

    Raises:
        RecipeError: if they cannot be written.
    """
    figure = plots.draw(groups)
    page = _page(groups, figure, faults)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_io.atomic_file(folder / "compare.png") as path:
            figure.savefig(path, dpi=200)
        atomic_io.write_text(folder / "compare.html", page)
    except OSError as error:
        raise RecipeError(
            f"cannot write to {folder}: {error.strerror}. Choose another --out."
        ) from error
    return folder / "compare.png", folder / "compare.html"


def _page(groups, figure, faults):
    template = jinja2.Template(
        TEMPLATE.read_text(), autoescape=True, trim_blocks=True
    )
    differing, shared = _settings(groups)
    return template.render(
        title=_title(groups),
        notes=[*faults, *cautions.find(groups)],
        figure=plots.svg(figure),
        num_parts=plots.NUM_PARTS,
        headings=HEADINGS,
        rows=rows(groups),
        groups=groups,
        colors=plots.COLORS,
        differing=differing,
        shared=shared,
        command=shlex.join(["python", *sys.argv]),
    )


def _title(groups):
    num_runs = sum(len(group.runs) for group in groups)
    datasets = sorted(
        {run.config["dataset"] for group in groups for run in group.runs}
    )
    return f"{num_runs} runs on {', '.join(datasets)}"


def _settings(groups):
    """The settings that differ, a dict from name to a text a group, and the
    others, a dict from name to value.
    """
    runs = [run for group in groups for run in group.runs]
    names = [f.name for f in dataclasses.fields(Config) if f.name != "workdir"]
    differing = {}
    for name in groups_lib.differing(runs, names):
        values = [[str(r.config[name]) for r in g.runs] for g in groups]
        differing[name] = [", ".join(dict.fromkeys(texts)) for texts in values]
    shared = {
        name: runs[0].config[name] for name in names if name not in differing
    }
    return differing, shared
