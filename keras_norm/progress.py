"""A progress bar on standard error, if it is a terminal."""

import contextlib

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from keras_norm.errors import printable


@contextlib.contextmanager
def show_progress(text, total):
    """Shows a progress bar; yields `advance(total=total)`, for one part more.

    Args:
        text: Description, or None to show nothing.
        total: Number of parts, or None if it is not known.
    """
    if text is None:
        yield lambda total=None: None
        return
    console = Console(stderr=True)
    with Progress(
        console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(escape(printable(text)), total=total)
        yield lambda total=total: progress.update(task, advance=1, total=total)
