"""Errors that a user can fix, which are shown as one line."""

import contextlib
import difflib
import errno
import os
import sys

# System errors of a disk that is full or read-only, and of unusable files.
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_CANNOT_USE = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.EISDIR,
)


class RecipeError(Exception):
    """A mistake in the flags, the data or the machine, and how to fix it."""


def one_line(error):
    """Returns the message of an error on one line."""
    return " ".join(str(error).split())


def first_line(error, default="no reason given"):
    """Returns the first line of an error's message."""
    return str(error).strip().partition("\n")[0] or default


def nearest_name(name, choices, cutoff=0.5):
    """Returns the choice that is spelled most like a name, or None."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower_case, 1, cutoff)
    return by_lower_case[close[0]] if close else None


def unknown_name_error(kind, name, choices):
    """Returns the error for a name that is not among the choices.

    Args:
        kind: Noun for what the name names, such as `"preset"`.
        name: The unknown name.
        choices: The known names.
    """
    nearest = nearest_name(name, choices)
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    return RecipeError(
        f"unknown {kind} {name!r}.{hint} There are: "
        f"{', '.join(sorted(choices))}."
    )


@contextlib.contextmanager
def exit_on_error():
    """Prints a `RecipeError` as one line and exits with status 1."""
    try:
        yield
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def explain_disk_errors(folder=None, describe_resumption=None):
    """Turns errors of a full or unusable disk into a `RecipeError`.

    Libraries wrap these errors in exceptions of their own, whose messages
    contain the text of the system.

    Args:
        folder: Path of the folder that is written, for errors that name no
            file, or None.
        describe_resumption: `f()` returns a clause that says what the same
            command does after the error, or None.
    """
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:
        reason = describe_disk_error(error, folder)
        if reason is None:
            raise
        advice = "Make room or choose another folder"
        if describe_resumption is not None:
            advice += f": {describe_resumption()}"
        raise RecipeError(f"{reason}. {advice}.") from error


def describe_disk_error(error, folder=None):
    """Returns a clause about a full or unusable disk, or None.

    Args:
        error: Any exception.
        folder: Path of the folder that is written, for errors that name no
            file, or None.
    """
    text = str(error)
    number = getattr(error, "errno", None)
    filename = getattr(error, "filename", None)
    for code in (*_CANNOT_WRITE, *_CANNOT_USE):
        message = os.strerror(code)
        if number == code and isinstance(error, OSError):
            place = filename
        elif code in _CANNOT_WRITE and message in text:
            place = None
        else:
            continue
        if code in _CANNOT_WRITE:
            # Errors of writing to an open file name no file.
            place = place or folder
            return f"cannot write{f' to {place}' if place else ''}: {message}"
        return f"cannot use a file: {f'{place}: ' if place else ''}{message}"
    return None
