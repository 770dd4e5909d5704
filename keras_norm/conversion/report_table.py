"""A report as a table that people read, with rich."""

import collections
from string import ascii_lowercase

from rich import box
from rich.table import Table
from rich.text import Text

from keras_norm.conversion import inspect_model
from keras_norm.conversion.report import KEPT
from keras_norm.conversion.report import REPLACED
from keras_norm.conversion.report import UNREACHABLE
from keras_norm.conversion.report import plural
from keras_norm.errors import printable

STYLES = {REPLACED: "", KEPT: "dim", UNREACHABLE: "bold red"}


def print_report(report, console):
    """Prints a report: the table, then what holds for the whole model."""
    table = _table(
        "batch normalization", "becomes", "activation", "weights", "function"
    )
    letters = {}
    for entry in report.entries:
        cells = _cells(entry, letters)
        table.add_row(*map(_text, cells), style=STYLES[entry.action])
    lines = [f"weights {letter}: {text}" for text, letter in letters.items()]
    lines += [report.summary(), *report.notes]
    lines += [f"{e.path}: {e.note}" for e in report.entries if e.note]
    lines += [_comparison(c, report) for c in report.comparisons]
    _print(console, table, lines)


def print_model(model, report, console):
    """Prints the normalization layers of a model.

    Args:
        model: The model.
        report: What `inventory.take` says of it.
        console: Where to.
    """
    table = _table("normalization", "layer", "input", "activation", "reached")
    for entry in report.entries:
        reached = entry.action != UNREACHABLE
        cells = (
            entry.path,
            entry.layer,
            "" if entry.shape is None else _shape(entry.shape),
            [f"{a.path}: {a.was}" for a in entry.activations],
            _reached(entry),
        )
        style = STYLES[REPLACED if reached else entry.action]
        table.add_row(*map(_text, cells), style=style)
    batch_norms = list(filter(inspect_model.is_batch_norm, report.entries))
    others = collections.Counter(
        entry.layer
        for entry in report.entries
        if not inspect_model.is_batch_norm(entry)
    )
    parts = [
        f"{model.count_params():,} parameters" if model.built else "not built",
        plural(len(batch_norms), "batch normalization"),
        f"{len(report.unreachable)} not reached by a graph walk",
        *(f"{number} {kind}" for kind, number in others.items()),
        f"{report.num_relus_kept} ReLU",
    ]
    line = f"{model.name} ({type(model).__name__}): {', '.join(parts)}"
    _print(console, table, [line, *report.notes])


def _reached(entry):
    if not inspect_model.is_batch_norm(entry):
        return ""
    return f"no: {entry.reason}" if entry.reason else "yes"


def _table(*columns):
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, highlight=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(console, table, lines):
    if table.row_count:
        console.print(table)
    for line in lines:
        console.print(_text(line), soft_wrap=True)


def _text(text):
    """A text, or a list of lines, without markup and control characters."""
    lines = text if isinstance(text, list) else [text]
    return Text("\n".join(map(printable, lines)))


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
        [_activation(a) for a in entry.activations],
        letter,
        entry.function,
    )


def _letter(number):
    more, last = divmod(number, len(ascii_lowercase))
    return (_letter(more - 1) if more else "") + ascii_lowercase[last]


def _activation(activation):
    becomes = activation.becomes or f"{activation.was}, kept"
    return f"{activation.path}: {becomes}"


def _comparison(comparison, report):
    # Where the function changes, a difference proves nothing.
    done = "compared" if report.function == "changed" else "verified"
    samples = plural(comparison.num_samples, f"{comparison.inputs} sample")
    return (
        f"{done} on {samples}: "
        f"largest difference {comparison.largest:.3g}, "
        f"{comparison.relative:.3g} of the largest output"
    )
