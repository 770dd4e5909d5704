"""What the runs of a sweep came to: a table, groups by what is along x."""

import dataclasses
import json

from recipes.experiments import aggregate as groups_lib
from recipes.run_dir import runs as runs_lib

# What a cell shows: key or function of a run, heading, factor, digits.
ACCURACY = ("eval/accuracy", "test top-1, %", 100, 2)


@dataclasses.dataclass(frozen=True)
class Table:
    """Groups of runs by what is varied along x and by the rest.

    Attributes:
        x: The setting along x, or None.
        columns: Its values in order; `[None]` without x.
        rows: The labels of the other settings, as flags.
        cells: Dict from (row, column) to a `groups.Group`.
    """

    x: str | None
    columns: list
    rows: list
    cells: dict

    def spread(self, row, column, value=ACCURACY[0]):
        """The `groups.Spread` of a value, or None."""
        group = self.cells.get((row, column))
        return None if group is None else group.spread(value)


def make(cells, x=None, load=None):
    """The table of the runs of a sweep that ended.

    Args:
        cells: List of `grid.Cell`.
        x: Name of a varied setting; None takes the first that has several
            numbers as values, if any.
        load: `f(cell)` gives its `runs.Run`, or None if it has not ended;
            None reads its workdir.
    """
    x = x or _default_x(cells)
    columns = list(dict.fromkeys(_value(cell, x) for cell in cells))
    if all(map(is_number, columns)):
        columns.sort()
    names = _telling(cells, x)
    rows, found = [], {}
    for cell in cells:
        row = _row(cell.varied, names, x)
        if row not in rows:
            rows.append(row)
        run = (load or _ended)(cell)
        if run is not None:
            found.setdefault((row, _value(cell, x)), []).append(run)
    groups = {
        (row, column): groups_lib.Group(row, {}, found[row, column])
        for row in rows
        for column in columns
        if (row, column) in found
    }
    return Table(x, columns, rows, groups)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def markdown(table, value=ACCURACY):
    """The table as Markdown: mean ± sample standard deviation over seeds."""
    key, heading, factor, digits = value
    heads = [heading]
    if table.x is not None:
        heads = [f"`{groups_lib.flag(table.x, c)}`" for c in table.columns]
    rows = {}
    for row in table.rows:
        spreads = [table.spread(row, column, key) for column in table.columns]
        rows[row] = [
            "" if spread is None else spread.text(digits, factor)
            for spread in spreads
        ]
    return grid_of(["" if table.x is None else heading, *heads], rows)


def grid_of(heads, rows):
    """A table of Markdown.

    Args:
        heads: List of headings, that of the labels first.
        rows: Dict from a label, which is code, to a list of texts.
    """
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    lines += [[f"`{label}`", *texts] for label, texts in rows.items()]
    return "\n".join(
        # A bar would end the cell.
        "| " + " | ".join(t.replace("|", "\\|") for t in line) + " |"
        for line in lines
    )


def _ended(cell):
    try:
        run = runs_lib.load(cell.config.folder)
    except runs_lib.RecipeError:
        return None
    return run if run.is_finished else None


def _default_x(cells):
    for name in cells[0].varied if cells else ():
        values = {str(cell.varied.get(name)) for cell in cells}
        numbers = all(is_number(cell.varied.get(name)) for cell in cells)
        if name != "seed" and numbers and len(values) > 1:
            return name
    return None


def _value(cell, x):
    """Where a cell is along x; where it does not say so, by its config."""
    if x is None:
        return None
    value = cell.varied.get(x, getattr(cell.config, x, None))
    # Only what can be a key; the arguments of a norm are a dict.
    return json.dumps(value) if isinstance(value, dict) else value


def _telling(cells, x):
    """The settings that tell rows apart: not x, not what all runs share."""
    return {
        name
        for cell in cells
        for name, value in cell.varied.items()
        if name not in ("seed", x)
        and any(other.varied.get(name) != value for other in cells)
    }


def _row(varied, names, x):
    """The settings of a row, as flags: those named, or the first it has."""
    shown = [
        groups_lib.flag(name, value)
        for name, value in varied.items()
        if name in names
    ]
    shared = [
        groups_lib.flag(name, value)
        for name, value in varied.items()
        if name not in ("seed", x)
    ]
    return " ".join(shown or shared[:1]) or "all runs"
