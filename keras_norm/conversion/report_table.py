"""A report as a table that people read, with rich."""

from string import ascii_lowercase

from rich import box
from rich.markup import escape
from rich.table import Table

STYLES = {"replaced": "", "kept": "dim", "unreachable": "bold red"}


def show(report, console):
    """Prints a report: the table, then what holds for the whole model."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, highlight=False)
    table.add_column("batch normalization", overflow="fold")
    table.add_column("becomes", overflow="fold")
    table.add_column("activation", overflow="fold")
    table.add_column("weights", justify="center")
    table.add_column("function", no_wrap=True)
    letters = {}
    for entry in report.entries:
        table.add_row(
            *(escape(cell) for cell in _cells(entry, letters)),
            style=STYLES[entry.action],
        )
    console.print(table)
    lines = [f"weights {letter}: {text}" for text, letter in letters.items()]
    lines += [report.summary(), *report.notes]
    lines += [f"{e.path}: {e.note}" for e in report.entries if e.note]
    lines += [_comparison(c) for c in report.comparisons]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(entry, letters):
    if entry.becomes is None:
        return entry.path, entry.action, entry.reason or "", "", ""
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
    noun = "sample" if comparison.num_samples == 1 else "samples"
    return (
        f"verified on {comparison.num_samples} {comparison.inputs} {noun}: "
        f"largest difference {comparison.largest:.3g}, "
        f"{comparison.relative:.3g} of the largest output"
    )
