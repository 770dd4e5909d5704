"""The weights that `--checkpoint` names, without training."""

import dataclasses
import pathlib

from recipes.errors import RecipeError
from recipes.training import checkpoints as checkpoints_lib


def resolved(config):
    """The config that builds the network of the checkpoint.

    A `.keras` file brings its own; a save holds that of its run. What predicts
    needs no more of a run than its workdir.

    Raises:
        RecipeError: for a file that is not there, or of another kind.
    """
    finished = config.folder / "model.keras"
    is_started = config.mode == "predict" and config.init_model is not None
    if is_started and not config.takes_whole_model and finished.is_file():
        return dataclasses.replace(
            config, init_model=str(finished), convert_to=None
        )
    if config.trains or config.checkpoint in ("last", "best"):
        return config
    path = pathlib.Path(config.checkpoint).expanduser()
    if path.suffix not in (".keras", ".h5", ".npz"):
        raise RecipeError(
            "--checkpoint takes last, best, a save (checkpoints/step_*.npz) or "
            f"a .keras file. Received: checkpoint={config.checkpoint}"
        )
    if not path.is_file():
        raise RecipeError(
            f"--checkpoint={config.checkpoint}: there is no such file."
        )
    if not config.takes_whole_model:
        return config
    return dataclasses.replace(
        config, init_model=str(path), convert_to=None, freeze=None
    )


def find(config, state, checkpoints, records):
    """The `Save` that `--checkpoint` names; None for a file with a network.

    Args:
        config: A `Config`.
        state: The `State` of the trainer.
        checkpoints: The `Checkpoints` of the workdir.
        records: Its `Records`.

    Raises:
        RecipeError: if there is no such save.
    """
    if config.checkpoint == "last":
        save = checkpoints.newest(state.variables)
        if save is None:
            raise RecipeError(
                f"--mode={config.mode} found no save in {config.folder}: train "
                "first, or give the --workdir of a run, or a --checkpoint."
            )
        return save
    if config.checkpoint == "best":
        best = records.best()
        if not best:
            raise RecipeError(
                f"--checkpoint=best: nothing was evaluated in {config.folder}."
            )
        return checkpoints_lib.read(
            checkpoints.path(best["step"]), state.variables
        )
    path = pathlib.Path(config.checkpoint).expanduser()
    if path.suffix == ".npz":
        return checkpoints_lib.read(path, state.variables)
    return None
