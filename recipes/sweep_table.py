"""What the runs of a sweep came to: a table, groups by what is along x."""

import dataclasses

from recipes import groups as groups_lib
from recipes import runs as runs_lib

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


def make(cells, x=None):
    """The table of the runs of a sweep that ended.

    Args:
        cells: List of `grid.Cell`.
        x: Name of a varied setting; None takes the first that has several
            numbers as values, if any.
    """
    x = x or _default_x(cells)
    values = {}
    for cell in cells:
        values.setdefault(cell.varied.get(x))
    columns = list(values)
    if all(isinstance(value, (int, float)) for value in columns):
        columns.sort()
    rows, found = [], {}
    for cell in cells:
        row = _row(cell.varied, x)
        if row not in rows:
            rows.append(row)
        members = found.setdefault((row, cell.varied.get(x)), [])
        run = _ended(cell)
        if run is not None:
            members.append(run)
    groups = {
        key: groups_lib.Group(key[0], {}, runs)
        for key, runs in found.items()
        if runs
    }
    return Table(x, columns, rows, groups)


def markdown(table, value=ACCURACY):
    """The table as Markdown: mean ± sample standard deviation over seeds."""
    key, heading, factor, digits = value
    heads = [""] + [
        heading if table.x is None else f"`--{table.x}={column}`"
        for column in table.columns
    ]
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(table.columns),
    ]
    for row in table.rows:
        texts = []
        for column in table.columns:
            spread = table.spread(row, column, key)
            texts.append("" if spread is None else spread.text(digits, factor))
        lines.append(f"| `{row}` | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _ended(cell):
    try:
        run = runs_lib.load(cell.config.folder)
    except runs_lib.RecipeError:
        return None
    return run if run.is_finished else None


def _default_x(cells):
    for name in cells[0].varied if cells else ():
        values = {str(cell.varied.get(name)) for cell in cells}
        numbers = all(
            isinstance(cell.varied.get(name), (int, float)) for cell in cells
        )
        if name != "seed" and numbers and len(values) > 1:
            return name
    return None


def _row(varied, x):
    """The settings of a row, as flags."""
    shown = [
        groups_lib.flag(name, value)
        for name, value in varied.items()
        if name not in ("seed", x)
    ]
    return " ".join(shown) or "all runs"
