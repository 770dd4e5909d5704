"""Prints reports as tables, with rich."""

import collections
from string import ascii_lowercase

from rich import box
from rich.table import Table
from rich.text import Text

from keras_norm.conversion.entries import KEPT
from keras_norm.conversion.entries import REPLACED
from keras_norm.conversion.entries import UNREACHABLE
from keras_norm.conversion.entries import plural
from keras_norm.errors import printable

STYLES = {REPLACED: "", KEPT: "dim", UNREACHABLE: "bold red"}


def print_report(report, console):
    """Prints a `ConversionReport`: a table, then remarks on the model."""
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
    lines += [describe_comparison(c, report) for c in report.comparisons]
    if report.calibration is not None:
        lines += _describe_calibration(report.calibration)
    _print(console, table, lines)


def print_model(model, report, console):
    """Prints the normalization layers of a model.

    Args:
        model: The model.
        report: The result of `inspect_model(model)`.
        console: The rich console to print to.
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
    num_batch_norms = sum(entry.is_batch_norm for entry in report.entries)
    others = collections.Counter(
        entry.layer for entry in report.entries if not entry.is_batch_norm
    )
    counts = [
        f"{model.count_params():,} parameters" if model.built else "not built",
        plural(num_batch_norms, "batch normalization"),
        f"{len(report.unreachable)} outside the functional graph",
        *(f"{number} {kind}" for kind, number in others.items()),
        f"{report.num_relus_kept} ReLU",
    ]
    line = f"{model.name} ({type(model).__name__}): {', '.join(counts)}"
    _print(console, table, [line, *report.notes])


def print_table(console, columns, rows, lines):
    """Prints a table and lines of text below it.

    Args:
        console: The rich console to print to.
        columns: Names of the columns.
        rows: List of tuples: the cells of a row and its style.
        lines: List of strings.
    """
    table = _table(*columns)
    for *cells, style in rows:
        table.add_row(*map(_text, cells), style=style)
    _print(console, table, lines)


def _reached(entry):
    if not entry.is_batch_norm:
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
    """Returns a string or a list of lines as text without markup."""
    lines = text if isinstance(text, list) else [text]
    return Text("\n".join(map(printable, lines)))


def _shape(shape):
    return " x ".join("?" if n is None else str(n) for n in shape[1:])


def _cells(entry, letters):
    if entry.becomes is None:
        return entry.path, f"{entry.action}: {entry.reason}", "", "", ""
    # Most layers treat their weights alike: one letter for each combination.
    actions = (
        ("copied", entry.copied),
        ("created", entry.created),
        ("dropped", entry.dropped),
    )
    text = "; ".join(f"{name} {', '.join(n)}" for name, n in actions if n)
    text = text or "none"
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


def _describe_calibration(result):
    """Returns lines on a calibration: the fit of every norm, and the result."""
    lines = [
        f"{fit.path}: {max(fit.explained_before, 0):.1%} of the variance "
        f"explained with copied weights, {max(fit.explained_after, 0):.1%} "
        "calibrated"
        + ("" if not fit.epsilon_ratio else f", epsilon {fit.epsilon_ratio:g}x")
        for fit in result.layers
    ]
    return lines + result.describe()


def describe_comparison(comparison, report):
    """Returns a line on the difference of two models' outputs."""
    # If the outputs are expected to change, a difference proves nothing.
    verb = "compared" if report.function == "changed" else "verified"
    samples = plural(comparison.num_samples, f"{comparison.inputs} sample")
    return (
        f"{verb} on {samples}: "
        f"largest difference {comparison.largest:.3g}, "
        f"{comparison.relative:.3g} of the largest output"
    )
