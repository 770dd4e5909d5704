"""Checkpoints: writing, reading and selecting them, and restoring weights.

`--checkpoint=last` is the newest checkpoint that can be read; `best` is the one
at the step of the best evaluation in the metrics log.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
import zlib

import keras
import numpy as np
from absl import logging

import keras_norm
from keras_norm import _keras_internals
from recipes import atomic_io
from recipes.errors import RecipeError
from recipes.errors import first_line
from recipes.run_dir import run_dir

# Name of the archive member with everything that is not an array.
METADATA_MEMBER = "facts.json"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        arrays: Dict from names to the values of all variables.
        metadata: Dict with `step`, `seconds` and `keras_norm`, the version
            that wrote it, which early checkpoints lack.
        path: Path of the file.
    """

    arrays: dict
    metadata: dict
    path: object


class TrainingState:
    """All variables that training steps change.

    They are the weights, moving statistics and seeds of the model, the
    optimizer's variables, weight averages, loss scale and counters.

    Args:
        trainer: The compiled `Trainer`.
    """

    def __init__(self, trainer):
        self.model = trainer.model
        groups = {
            "model": trainer.model.variables,
            "optimizer": trainer.optimizer.variables,
            "step": trainer.step_variables,
        }
        # By index: names of layers may depend on what was built before.
        self.variables = {
            f"{group}.{index:05d}": variable
            for group, variables in groups.items()
            for index, variable in enumerate(variables)
        }

    def read(self):
        """Returns a dict from names to the values of all variables."""
        return {
            name: keras.ops.convert_to_numpy(variable)
            for name, variable in self.variables.items()
        }

    def write(self, arrays, version):
        """Assigns values to all variables.

        Args:
            arrays: Dict of arrays, as returned by `read`.
            version: Version of keras_norm that trained them. None means an
                early version, whose group normalization had another default
                number of groups.

        Raises:
            RecipeError: if the shape of an array does not match.
        """
        for name, variable in self.variables.items():
            if tuple(variable.shape) != arrays[name].shape:
                raise RecipeError(
                    f"{variable.path} has the shape {arrays[name].shape} in "
                    f"the checkpoint and {tuple(variable.shape)} in this "
                    "network."
                )
        for name, variable in self.variables.items():
            variable.assign(arrays[name])
        if version is None:
            for layer in _keras_internals.all_layers(self.model):
                if isinstance(layer, keras_norm.GroupNormalization):
                    layer.take_former_default()


class CheckpointManager:
    """The checkpoints of a workdir: the most recent ones, and the best.

    A checkpoint is one file, a ZIP archive of NumPy arrays, whose checksums
    detect truncated and modified files. It gets its name only after it is
    complete and synchronized to the disk.

    Args:
        workdir: Path of the run.
        keep: Number of recent checkpoints to keep.
    """

    def __init__(self, workdir, keep):
        self.workdir = workdir
        self.folder = workdir / run_dir.CHECKPOINT_FOLDER
        self.keep = keep

    def save(self, arrays, metadata, best_step):
        """Writes a checkpoint and removes old ones.

        Args:
            arrays: Dict of NumPy arrays.
            metadata: Dict that JSON can hold; `step` names the file.
            best_step: Step whose checkpoint is always kept, or None.

        Raises:
            RecipeError: if the file cannot be written. Earlier ones stay.
        """
        text = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (
                atomic_io.atomic_file(self.path(metadata["step"])) as partial,
                partial.open("wb") as file,
            ):
                np.savez(file, **{METADATA_MEMBER: text}, **arrays)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RecipeError(
                f"cannot save to {self.folder}: {error.strerror or error}. "
                f"Make room: {run_dir.describe_resumption(self.workdir)}."
            ) from error
        for old in self.paths()[self.keep :]:
            if old != self.path(best_step or 0):
                old.unlink()

    def read_newest(self, names):
        """Reads the newest checkpoint that is not damaged.

        Args:
            names: Names of the arrays that it must hold.

        Returns:
            A `Checkpoint`, or None if there are no checkpoints.

        Raises:
            RecipeError: if there are checkpoints, but all are damaged.
        """
        for path in self.paths():
            try:
                return read_checkpoint(path, names)
            except RecipeError as error:
                logging.warning("%s; using the previous checkpoint.", error)
        if self.paths():
            raise RecipeError(
                f"no checkpoint in {self.folder} can be read. Choose another "
                "--workdir, or delete that folder to start again."
            )
        return None

    def path(self, step):
        """Returns the path of the checkpoint of a step."""
        return run_dir.checkpoint_path(self.workdir, step)

    def paths(self):
        """Returns the paths of all checkpoints, newest first."""
        return run_dir.checkpoint_paths(self.workdir)


def read_checkpoint(path, names):
    """Reads a checkpoint file.

    Args:
        path: Path of the file.
        names: Names of the arrays that it must hold.

    Raises:
        RecipeError: if the file is damaged or of another network.
    """
    try:
        # NumPy leaves a file that it has opened itself open on errors.
        with path.open("rb") as file, np.load(file) as members:
            arrays = {name: members[name] for name in members.files}
        metadata = json.loads(arrays.pop(METADATA_MEMBER).tobytes())
        if type(metadata["step"]) is not int or metadata["seconds"] < 0:
            raise ValueError("its step or its time is not a number")
    except (
        OSError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        # Archives that seem encrypted, or use another compression.
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        reason = first_line(error, "it is empty")
        raise RecipeError(f"{path} cannot be read ({reason})") from error
    unmatched = sorted(set(names) ^ set(arrays))
    if unmatched:
        raise RecipeError(
            f"{path} is of another network or optimizer: "
            f"{', '.join(unmatched[:3])} is not in both"
        )
    return Checkpoint(arrays, metadata, path)


def select_checkpoint(config, state, manager, metrics_log):
    """Reads the checkpoint that `--checkpoint` selects.

    Args:
        config: The config of the run.
        state: The `TrainingState` to restore.
        manager: The `CheckpointManager` of the workdir.
        metrics_log: The `MetricsLog` of the workdir.

    Returns:
        A `Checkpoint`, or None if `--checkpoint` is a model file.

    Raises:
        RecipeError: if the checkpoint does not exist or is damaged.
    """
    if config.checkpoint == "last":
        checkpoint = manager.read_newest(state.variables)
        if checkpoint is None:
            raise RecipeError(
                f"--mode={config.mode} found no checkpoint in {config.folder}: "
                "train first, or give the --workdir of a run, or a "
                "--checkpoint."
            )
        return checkpoint
    if config.checkpoint == "best":
        best = metrics_log.best()
        if not best:
            raise RecipeError(
                f"--checkpoint=best: nothing was evaluated in {config.folder}."
            )
        return read_checkpoint(manager.path(best["step"]), state.variables)
    path = pathlib.Path(config.checkpoint).expanduser()
    if path.suffix == ".npz":
        return read_checkpoint(path, state.variables)
    return None


def config_for_checkpoint(config):
    """Returns the config that builds the network of `--checkpoint`.

    A `.keras` file holds its network; other checkpoints belong to the network
    of their run. To predict, the run's own model.keras replaces the model that
    training started from.

    Raises:
        RecipeError: if the file does not exist or is not a checkpoint.
    """
    finished = config.folder / "model.keras"
    has_init_model = config.mode == "predict" and config.init_model is not None
    if has_init_model and not config.takes_whole_model and finished.is_file():
        return config.with_model(finished)
    if config.trains or config.checkpoint in ("last", "best"):
        return config
    path = pathlib.Path(config.checkpoint).expanduser()
    if path.suffix not in (".keras", ".h5", ".npz"):
        raise RecipeError(
            "--checkpoint takes last, best, a checkpoint file "
            "(checkpoints/step_*.npz) or a .keras file. "
            f"Received: checkpoint={config.checkpoint}"
        )
    if not path.is_file():
        raise RecipeError(
            f"--checkpoint={config.checkpoint}: the file does not exist."
        )
    if not config.takes_whole_model:
        return config
    return config.with_model(path, freeze=None)
