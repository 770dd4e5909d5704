"""Files that cannot be written or read, in one line."""

import contextlib
import errno
import os

from recipes.errors import RecipeError
from recipes.training import checkpoints

# The errors of a disk that is full, and of one that cannot be written.
_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_EITHER = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EISDIR)


@contextlib.contextmanager
def explained(folder=None):
    """Turns the errors of a disk inside into a `RecipeError`.

    Libraries raise their own exceptions for them, whose texts hold that of the
    system.

    Args:
        folder: Path of the run, for what the same command does after it; None
            for a program that is not a run.
    """
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        advice = "Make room or choose another folder"
        if folder is not None:
            advice += f": {checkpoints.resumption(folder)}"
        raise RecipeError(f"{reason}. {advice}.") from error


def _reason(error):
    text = str(error)
    number = getattr(error, "errno", None)
    filename = getattr(error, "filename", None)
    for code in (*_WRITING, *_EITHER):
        said = os.strerror(code)
        if number == code and isinstance(error, OSError):
            place = f"{filename}: " if filename else ""
        elif code in _WRITING and said in text:
            place = ""
        else:
            continue
        what = "cannot write" if code in _WRITING else "cannot use a file"
        return f"{what}: {place}{said}"
    return None
