"""Saves that a killed run goes on from."""

import dataclasses
import json
import os
import re
import zipfile
import zlib

import numpy as np
from absl import logging

from recipes import atomic_io
from recipes.errors import RecipeError

# The entry of a save that holds what is no array.
FACTS = "facts.json"
_NAME = re.compile(r"step_(\d{9})\.npz")


@dataclasses.dataclass(frozen=True)
class Save:
    """What a save holds.

    Attributes:
        arrays: Dict of the value of every variable.
        facts: Dict: `step`, `seconds` and what else was said.
        path: Where it lies.
    """

    arrays: dict
    facts: dict
    path: object


class Checkpoints:
    """The saves of a workdir: the newest few, and the best.

    A save is one file, a ZIP archive of NumPy arrays, whose checksums show
    what is torn or was changed since. It gets its name only once it is whole
    and on the disk.

    Args:
        workdir: Path of the run.
        keep: How many of the newest stay.
    """

    def __init__(self, workdir, keep):
        self.folder = workdir / "checkpoints"
        self.keep = keep

    def save(self, arrays, facts, best_step):
        """Writes a save and removes old ones.

        Args:
            arrays: Dict of NumPy arrays.
            facts: Dict that JSON can hold; `step` names the save.
            best_step: The step whose save stays whatever its age, or None.

        Raises:
            RecipeError: if it cannot be written; the ones before stay.
        """
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (
                atomic_io.file(self.path(facts["step"])) as partial,
                partial.open("wb") as file,
            ):
                np.savez(file, **{FACTS: text}, **arrays)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecipeError(
                f"cannot save to {self.folder}: {error.strerror or error}. "
                f"Make room: {resumption(self.folder.parent)}."
            ) from error
        for old in self.paths()[self.keep :]:
            if old != self.path(best_step or 0):
                old.unlink()

    def newest(self, wanted):
        """The newest save that can be read, or None without any.

        Args:
            wanted: Names of the arrays that it must hold.

        Raises:
            RecipeError: if there are saves, and none can be read.
        """
        for path in self.paths():
            try:
                return read(path, wanted)
            except RecipeError as error:
                logging.warning("%s; taking the save before.", error)
        if self.paths():
            raise RecipeError(
                f"no save in {self.folder} can be read. Choose another "
                "--workdir, or delete that folder to start again."
            )
        return None

    def path(self, step):
        """The path of the save of a step."""
        return self.folder / f"step_{step:09d}.npz"

    def paths(self):
        """The saves, newest first."""
        found = [p for p in self.folder.glob("*") if _NAME.fullmatch(p.name)]
        return sorted(found, reverse=True)


def resumption(workdir):
    """Says what the same command does after a run has ended too early.

    Args:
        workdir: Path of the run.
    """
    paths = Checkpoints(workdir, keep=1).paths()
    if paths:
        return f"the same command resumes from {paths[0]}"
    return "no checkpoint was saved yet, the same command starts anew"


def earlier(workdir):
    """Names the newest checkpoint as a sentence to append; or nothing."""
    paths = Checkpoints(workdir, keep=1).paths()
    return f" The newest checkpoint is {paths[0]}." if paths else ""


def read(path, wanted):
    """The `Save` in a file.

    Args:
        path: Path of the file.
        wanted: Names of the arrays that it must hold.

    Raises:
        RecipeError: if it is not whole, or of another network.
    """
    try:
        # NumPy leaves a file of its own open where it is no archive.
        with path.open("rb") as file, np.load(file) as entries:
            arrays = {name: entries[name] for name in entries.files}
        facts = json.loads(arrays.pop(FACTS).tobytes())
        if type(facts["step"]) is not int or facts["seconds"] < 0:
            raise ValueError("its step or its time is not a number")
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        # A ZIP archive that seems encrypted, or compressed in another way.
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else "it is empty"
        raise RecipeError(f"{path} cannot be read ({reason})") from error
    missing = sorted(set(wanted) ^ set(arrays))
    if missing:
        raise RecipeError(
            f"{path} is of another network or optimizer: "
            f"{', '.join(missing[:3])} is not in both"
        )
    return Save(arrays, facts, path)
