"""When a run logs, evaluates, saves checkpoints and profiles."""

import dataclasses

from recipes.errors import RecipeError
from recipes.run_dir import run_dir


@dataclasses.dataclass(frozen=True)
class StepSchedule:
    """Schedule of logging, evaluation, checkpoints and profiling.

    Attributes:
        config: The config of the run.
        data: The `Data` of the run.
        profile: First and last step of the profile; zeros for no profile.
    """

    config: object
    data: object
    profile: tuple

    def next_stop(self, step):
        """Returns the step after which Python takes over again."""
        stops = [
            step + self.config.steps_per_execution,
            self.data.num_steps,
            _multiple_after(step, self.config.log_every_steps),
            _multiple_after(step, self.data.steps_per_epoch),
        ]
        if step < 1:
            stops.append(1)
        for every in (
            self.config.save_every_steps,
            self.config.eval_every_steps,
        ):
            if every:
                stops.append(_multiple_after(step, every))
        first, last = self.profile
        stops += [stop for stop in (first - 1, last) if stop > step]
        return min(stops)

    def logs_after(self, step):
        """Returns True if the metrics of the step are logged.

        This includes the first step and the last step of each epoch.
        """
        is_due = step % self.config.log_every_steps == 0
        return step == 1 or is_due or self.ends_epoch(step)

    def ends_epoch(self, step):
        return step % self.data.steps_per_epoch == 0 or self.is_last(step)

    def evaluates_after(self, step):
        if self.config.mode != "train_and_eval":
            return False
        if self.is_last(step):
            return True
        if self.config.eval_every_steps:
            return step % self.config.eval_every_steps == 0
        every = self.config.eval_every_epochs * self.data.steps_per_epoch
        return step % every == 0

    def saves_after(self, step):
        # Every evaluated step has a checkpoint, so that the best one exists.
        if self.evaluates_after(step) or self.is_last(step):
            return True
        if self.config.save_every_steps:
            return step % self.config.save_every_steps == 0
        return self.ends_epoch(step)

    def is_last(self, step):
        return step == self.data.num_steps


def make_step_schedule(config, data):
    """Returns the `StepSchedule` of a run.

    Raises:
        RecipeError: if `--profile_steps` is not a pair of steps.
    """
    if config.profile_steps is None:
        return StepSchedule(config, data, (0, 0))
    try:
        first, last = map(int, config.profile_steps.split(","))
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise RecipeError(
            "--profile_steps takes two steps, the first and the last, such as "
            f"10,20. Received: profile_steps={config.profile_steps}"
        )
    return StepSchedule(config, data, (first, last))


def _multiple_after(step, period):
    return (step // period + 1) * period


def read_earlier_length(config, data, stored):
    """Returns the number of steps that the run was to have before, if another.

    Args:
        config: The config of the run.
        data: Its `Data`.
        stored: Dict of the settings stored in the workdir; may be empty.

    Raises:
        RecipeError: if the warmup of the longer run would differ.
    """
    lengths = {
        name: stored.get(name, getattr(config, name))
        for name in ("train_steps", "train_epochs")
    }
    if not stored or all(
        value == getattr(config, name) for name, value in lengths.items()
    ):
        return None
    earlier = stored.get("train_steps")
    if earlier is None:
        earlier = max(round(lengths["train_epochs"] * data.steps_per_epoch), 1)
    warmup = round(config.warmup_epochs * data.steps_per_epoch)
    if earlier < min(warmup, data.num_steps):
        raise RecipeError(
            f"the run in {config.folder} was trained for {earlier} steps, "
            f"which cut its warmup of {warmup} steps short: a longer run has "
            "other learning rates."
            f"{run_dir.advise_to_start_from_model(config.folder)}"
        )
    return earlier


def drop_final_entries(metrics_log, config, data, last_step):
    """Drops entries of the earlier last step that a longer run does not have.

    These are its metrics and its evaluation, if they were not due anyway.
    """
    schedule = make_step_schedule(
        dataclasses.replace(config, mode="train_and_eval"), data
    )
    if schedule.is_last(last_step):
        return

    def is_unwanted(entry):
        if entry["step"] != last_step:
            return False
        if "train/loss" in entry:
            return not schedule.logs_after(last_step)
        return not schedule.evaluates_after(last_step)

    metrics_log.drop(is_unwanted)
