"""Atomic writes: a killed run leaves complete files and folders, or none."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid


@contextlib.contextmanager
def atomic_file(path, concurrent=False):
    """Yields a temporary path that is renamed to `path` on success.

    On failure, a file that existed before stays, and nothing else.

    Args:
        path: Path of the file, which is replaced.
        concurrent: Whether other processes may write the file at the same time.
    """
    unique = f"{uuid.uuid4().hex}-" if concurrent else ""
    partial = path.with_name(f"partial-{unique}{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path, replace=True):
    """Yields a new temporary folder that is renamed to `path` on success.

    On failure, a folder that existed before stays, and nothing else.

    Args:
        path: Path of the folder.
        replace: If true, an existing folder is replaced, and the caller must be
            the only process that writes it. Otherwise a folder that another
            process completes first is kept.
    """
    former = path.with_name(f".{path.name}.former")
    prefix = f".{path.name}.unfinished-"
    created = [parent for parent in path.parents if not parent.exists()]
    outer = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if replace:
            if former.exists() and not path.exists():
                former.rename(path)  # Killed between the two renames below.
            for killed in path.parent.glob(f"{prefix}*"):
                shutil.rmtree(killed)
        outer = tempfile.mkdtemp(prefix=prefix, dir=path.parent)
        # Unlike mkdtemp, mkdir gives the folder the user's usual permissions.
        unfinished = pathlib.Path(outer) / path.name
        unfinished.mkdir()
        yield unfinished
        if replace and path.exists():
            shutil.rmtree(former, ignore_errors=True)
            path.rename(former)
        try:
            unfinished.rename(path)
        except OSError:
            if replace or not path.is_dir():
                raise
        shutil.rmtree(former, ignore_errors=True)
    finally:
        if outer is not None:
            shutil.rmtree(outer, ignore_errors=True)
        remove_empty(created)


def remove_empty(folders):
    """Removes folders up to the first one that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def write_text(path, text):
    """Writes a text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text)
