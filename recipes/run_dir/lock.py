"""A folder that one process at a time works in."""

import contextlib
import errno
import fcntl
import os
import platform

from recipes.errors import RecipeError

NAME = "lock"
# Processes that fail remove their folder, which another may be making.
MAX_TRIES = 100


@contextlib.contextmanager
def held(folder, what, flag):
    """Inside, no other process holds the lock of the folder.

    The folder is made if it does not exist. If nothing but the lock is in it at
    the end, the lock is removed, and with it every folder that was made.

    Args:
        folder: Path of the folder.
        what: What may work in it, such as `"run"`, for the message.
        flag: The flag that names the folder, for the message.

    Raises:
        RecipeError: if another process holds it, or it cannot be written.
    """
    new = []
    try:
        new += [p for p in (folder, *folder.parents) if not p.exists()]
        lock = _take(folder, what, flag)
    except OSError as error:
        _remove_empty(new)
        raise RecipeError(
            f"cannot write to {folder}: {error.strerror}. Choose another "
            f"--{flag}."
        ) from error
    try:
        yield
    finally:
        # Before it is released: nobody else can hold it meanwhile.
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [NAME]:
                (folder / NAME).unlink()
                _remove_empty(new)
        os.close(lock)


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


def _take(folder, what, flag):
    """The descriptor of the lock, which is held."""
    path = folder / NAME
    for _ in range(MAX_TRIES):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # A process that failed has just removed the folder.
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
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # An empty file that nobody needs.
                with contextlib.suppress(OSError):
                    path.unlink()
            os.close(lock)
            raise
        os.close(lock)  # Its holder has removed it meanwhile.
    raise FileNotFoundError(errno.ENOENT, f"{NAME} cannot be made in it")


def _is_at(descriptor, path):
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_empty(folders):
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
