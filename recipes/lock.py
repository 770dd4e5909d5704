"""A folder that one process at a time works in."""

import contextlib
import fcntl
import os
import platform

from recipes.errors import RecipeError

NAME = "lock"


@contextlib.contextmanager
def held(folder, what, flag):
    """Inside, no other process holds the lock of the folder.

    Args:
        folder: Path of the folder.
        what: What may work in it, such as `"run"`, for the message.
        flag: The flag that names the folder, for the message.

    Raises:
        RecipeError: if another process holds it.
    """
    with (folder / NAME).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise RecipeError(
                f"{folder} is in use by another {what} "
                f"({lock.read().strip() or 'unknown'}). Wait for it, or choose "
                f"another --{flag}."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield


def is_held(folder):
    """Whether a process holds the lock of the folder."""
    try:
        with (folder / NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
