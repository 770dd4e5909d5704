"""Files that are there whole or not at all, whenever a run is killed."""

import contextlib
import os


@contextlib.contextmanager
def file(path):
    """Yields a path to write to, which gets its name once that is done.

    Where it fails, what was there stays and nothing else.

    Args:
        path: Path of the file, which is replaced.
    """
    partial = path.with_name(f"partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file, or leaves what was there."""
    with file(path) as partial:
        partial.write_text(text)
