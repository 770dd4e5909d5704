"""A report as a table that people read, with rich."""

from string import ascii_lowercase

from rich import box
from rich.markup import escape
from rich.table import Table

from keras_norm.conversion.report import KEPT
from keras_norm.conversion.report import REPLACED
from keras_norm.conversion.report import UNREACHABLE
from keras_norm.conversion.report import plural

STYLES = {REPLACED: "", KEPT: "dim", UNREACHABLE: "bold red"}


def show(report, console):
    """Prints a report: the table, then what holds for the whole model."""
    table = _table("becomes", "activation", "weights", "function")
    letters = {}
    for entry in report.entries:
        cells = (escape(cell) for cell in _cells(entry, letters))
        table.add_row(*cells, style=STYLES[entry.action])
    lines = [f"weights {letter}: {text}" for text, letter in letters.items()]
    lines += [report.summary(), *report.notes]
    lines += [f"{e.path}: {e.note}" for e in report.entries if e.note]
    lines += [_comparison(c) for c in report.comparisons]
    _print(console, table, lines)


def show_model(model, report, console):
    """Prints what there is to convert in a model.

    Args:
        model: The model.
        report: A report of a conversion that keeps everything.
        console: Where to.
    """
    table = _table("input", "activation", "reached")
    for entry in report.entries:
        reached = entry.action != UNREACHABLE
        cells = (
            entry.path,
            "" if entry.shape is None else _shape(entry.shape),
            "\n".join(f"{a.path}: {a.was}" for a in entry.activations),
            "yes" if reached else f"no: {entry.reason}",
        )
        style = STYLES[REPLACED if reached else entry.action]
        table.add_row(*(escape(cell) for cell in cells), style=style)
    line = (
        f"{model.name} ({type(model).__name__}): {model.count_params():,} "
        f"parameters, {plural(len(report.entries), 'batch normalization')}, "
        f"{len(report.unreachable)} not reached by a graph walk, "
        f"{report.num_relus_kept} ReLU"
    )
    _print(console, table, [line, *report.notes])


def _table(*columns):
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, highlight=False)
    for column in ("batch normalization", *columns):
        table.add_column(column, overflow="fold")
    return table


def _print(console, table, lines):
    console.print(table)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shape(shape):
    return " x ".join("?" if n is None else str(n) for n in shape[1:])


def _cells(entry, letters):
    if entry.becomes is None:
        return entry.path, f"{entry.action}: {entry.reason}", "", "", ""
    # Few layers differ in what becomes of their weights: a letter for each way.
    ways = (
        ("copied", entry.copied),
        ("created", entry.created),
        ("dropped", entry.dropped),
    )
    text = "; ".join(f"{way} {', '.join(n)}" for way, n in ways if n) or "none"
    letter = letters.setdefault(text, _letter(len(letters)))
    return (
        entry.path,
        entry.becomes,
        "\n".join(_activation(a) for a in entry.activations),
        letter,
        entry.function,
    )


def _letter(number):
    more, last = divmod(number, len(ascii_lowercase))
    return (_letter(more - 1) if more else "") + ascii_lowercase[last]


def _activation(activation):
    becomes = activation.becomes or f"{activation.was}, kept"
    return f"{activation.path}: {becomes}"


def _comparison(comparison):
    samples = plural(comparison.num_samples, f"{comparison.inputs} sample")
    return (
        f"verified on {samples}: "
        f"largest difference {comparison.largest:.3g}, "
        f"{comparison.relative:.3g} of the largest output"
    )
