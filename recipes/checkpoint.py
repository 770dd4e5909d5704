"""Saves that a killed run goes on from."""

import json
import os
import shutil

from absl import logging

from recipes.errors import RecipeError

KEEP = 2
WEIGHTS = "trainer.weights.h5"
STATE = "state.json"


class Checkpoints:
    """The saves of a workdir, one folder an epoch, the newest few kept.

    A save holds weights, moving statistics, the optimizer's state and epoch.
    It gets its name only once it is whole.

    Args:
        workdir: Path of the run.
    """

    def __init__(self, workdir):
        self.folder = workdir / "checkpoints"

    def save(self, trainer, epoch, seconds):
        """Saves the state after `epoch` epochs and `seconds` of training."""
        state = {"epoch": epoch, "seconds": seconds}
        partial = self.folder / "partial"
        whole = self.folder / f"epoch_{epoch:06d}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            trainer.save_weights(partial / WEIGHTS)
            (partial / STATE).write_text(json.dumps(state))
            shutil.rmtree(whole, ignore_errors=True)  # Torn, or not here.
            os.replace(partial, whole)
        except OSError as error:
            raise RecipeError(
                f"cannot save to {self.folder}: {error}. The save before is "
                "whole: make room and run the same command again."
            ) from error
        for old in self._saves()[KEEP:]:
            shutil.rmtree(old)

    def restore(self, trainer):
        """Loads the newest whole save.

        Returns:
            Epochs done and seconds taken; zeros without a save.

        Raises:
            RecipeError: if there are saves, and none can be read.
        """
        trainer.optimizer.build(trainer.model.trainable_variables)
        for save in self._saves():
            try:
                state = json.loads((save / STATE).read_text())
                trainer.load_weights(save / WEIGHTS)
                return state["epoch"], state["seconds"]
            except (OSError, KeyError, ValueError) as error:
                logging.warning(
                    "%s cannot be read (%s); taking the save before.",
                    save,
                    error,
                )
        if self._saves():
            raise RecipeError(
                f"no save in {self.folder} can be read. Choose another "
                "--workdir, or delete that folder to start again."
            )
        return 0, 0.0

    def _saves(self):
        """Newest first."""
        return sorted(self.folder.glob("epoch_*"), reverse=True)
