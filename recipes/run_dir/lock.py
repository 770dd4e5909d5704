"""A lock that gives one process exclusive use of a folder."""

import contextlib
import errno
import fcntl
import os
import platform

from recipes import atomic_io
from recipes.errors import RecipeError

NAME = "lock"
# A process that fails may remove a folder while another one creates it.
MAX_TRIES = 100
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def acquire_lock(folder, what, flag):
    """Holds the lock of a folder while the context is active.

    The folder is created if it does not exist. If it holds nothing but the lock
    at the end, the lock and every folder that was created are removed.

    Args:
        folder: Path of the folder.
        what: Noun for the user of the folder, such as `"run"`, for messages.
        flag: Name of the flag that sets the folder, for messages.

    Raises:
        RecipeError: if another process holds the lock, or the folder cannot be
            written.
    """
    created = []
    try:
        created += [p for p in (folder, *folder.parents) if not p.exists()]
        lock = _acquire(folder, what, flag)
    except OSError as error:
        atomic_io.remove_empty(created)
        advice = "Make room or choose" if error.errno in _FULL else "Choose"
        raise RecipeError(
            f"cannot write to {folder}: {error.strerror}. {advice} another "
            f"--{flag}."
        ) from error
    try:
        yield
    finally:
        # Before releasing the lock, so that no other process can hold it.
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [NAME]:
                (folder / NAME).unlink()
                atomic_io.remove_empty(created)
        os.close(lock)


def is_locked(folder):
    """Returns True if a process holds the lock of the folder."""
    try:
        with (folder / NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _acquire(folder, what, flag):
    """Acquires the lock and returns its file descriptor."""
    path = folder / NAME
    for _ in range(MAX_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # A failed process has just removed the folder.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, path):
                os.ftruncate(lock, 0)
                text = f"process {os.getpid()} on {platform.node()}\n"
                os.write(lock, text.encode())
                return lock
        except BlockingIOError as error:
            holder = os.read(lock, 1000).decode(errors="replace").strip()
            os.close(lock)
            raise RecipeError(
                f"{folder} is in use by another {what} "
                f"({holder or 'unknown'}). Wait for it, or choose another "
                f"--{flag}."
            ) from error
        except OSError as error:
            if error.errno in _FULL:
                # Do not leave an empty lock file on a full disk.
                with contextlib.suppress(OSError):
                    path.unlink()
            os.close(lock)
            raise
        os.close(lock)  # Its holder has removed the file meanwhile.
    raise FileNotFoundError(errno.ENOENT, f"{NAME} cannot be created in it")


def _is_at(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
