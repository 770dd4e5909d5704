"""Training for longer than a run was meant to take."""

import dataclasses

from recipes.errors import RecipeError
from recipes.training import stops

FIELDS = ("train_epochs", "train_steps")


def is_raised(kept, given):
    """Whether settings differ from those of a run by a larger length.

    Args:
        kept: Dict of the settings of the run.
        given: Dict of the settings now.
    """
    changed = [name for name in FIELDS if kept[name] != given[name]]
    if len(changed) != 1:
        return False
    before, now = kept[changed[0]], given[changed[0]]
    return None not in (before, now) and now > before


def extends(kept, given):
    """Whether the learning rates of a run are also those of a longer one."""
    return is_raised(kept, given) and kept["schedule"] == "constant"


def advice(folder, kept):
    """How a run is trained further where its length is part of it."""
    return (
        "A longer run has the same learning rates only with "
        f"--schedule=constant, not with {kept['schedule']}."
        f"{_from_model(folder)} "
    )


def extended(config, data, kept):
    """The number of steps that the run in the workdir was meant to have.

    Args:
        config: The config of the run.
        data: Its `Data`.
        kept: Dict of the settings that the workdir keeps; empty for none.

    Returns:
        The number; None without such a run, or where it is the same now.

    Raises:
        RecipeError: if the warmup would be another one in the longer run.
    """
    if not kept or all(
        kept.get(name, getattr(config, name)) == getattr(config, name)
        for name in FIELDS
    ):
        return None
    before = kept.get("train_steps")
    if before is None:
        before = max(
            round(
                kept.get("train_epochs", config.train_epochs)
                * data.steps_per_epoch
            ),
            1,
        )
    warmup = round(config.warmup_epochs * data.steps_per_epoch)
    if before < min(warmup, data.num_steps):
        raise RecipeError(
            f"the run in {config.folder} was trained for {before} steps, in "
            f"which its warmup of {warmup} steps was cut short: a longer run "
            f"has other learning rates.{_from_model(config.folder)}"
        )
    return before


def is_of_the_end(config, data, num_steps):
    """`f(row)` is true for rows that only a run of `num_steps` steps has.

    Those are the values and the evaluation of its last step, unless the longer
    run has them too.
    """
    longer = stops.make(
        dataclasses.replace(config, mode="train_and_eval"), data
    )

    def is_unwanted(row):
        if row["step"] != num_steps or longer.is_last(num_steps):
            return False
        has = longer.logs if "train/loss" in row else longer.evaluates
        return not has(num_steps)

    return is_unwanted


def _from_model(folder):
    model = folder / "model.keras"
    if not model.exists():
        return ""
    return (
        f" To train further, start another run from its model: "
        f"--init_model={model} --workdir=NEW_FOLDER."
    )
