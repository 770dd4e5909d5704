"""Where a run stops for a moment: to write, to evaluate, to save."""

import dataclasses

from recipes.errors import RecipeError


@dataclasses.dataclass(frozen=True)
class Stops:
    """What happens after which step.

    Attributes:
        config: The `Config` of the run.
        data: The `Data` of the run.
        profile: First and last step of the profile; zeros for none.
    """

    config: object
    data: object
    profile: tuple

    def next(self, step):
        """The next step after which something happens, at most an execution."""
        ends = [
            step + self.config.steps_per_execution,
            self.data.num_steps,
            _multiple_after(step, self.config.log_every_steps),
            _multiple_after(step, self.data.steps_per_epoch),
        ]
        if step < 1:
            ends.append(1)
        for every in (
            self.config.save_every_steps,
            self.config.eval_every_steps,
        ):
            if every:
                ends.append(_multiple_after(step, every))
        first, last = self.profile
        ends += [end for end in (first - 1, last) if end > step]
        return min(ends)

    def logs(self, step):
        """Whether the values of the step are written.

        Those of the first step are, and those of the last step of an epoch.
        """
        is_due = step % self.config.log_every_steps == 0
        return step == 1 or is_due or self.ends_epoch(step)

    def ends_epoch(self, step):
        return step % self.data.steps_per_epoch == 0 or self.is_last(step)

    def evaluates(self, step):
        if self.config.mode != "train_and_eval":
            return False
        if self.is_last(step):
            return True
        if self.config.eval_every_steps:
            return step % self.config.eval_every_steps == 0
        every = self.config.eval_every_epochs * self.data.steps_per_epoch
        return step % every == 0

    def saves(self, step):
        # An evaluation is of a save, so that the best of them is there.
        if self.evaluates(step) or self.is_last(step):
            return True
        if self.config.save_every_steps:
            return step % self.config.save_every_steps == 0
        return self.ends_epoch(step)

    def is_last(self, step):
        return step == self.data.num_steps


def make(config, data):
    """The stops of a run.

    Raises:
        RecipeError: if `--profile_steps` is no pair of steps.
    """
    if config.profile_steps is None:
        return Stops(config, data, (0, 0))
    try:
        first, last = map(int, config.profile_steps.split(","))
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise RecipeError(
            "--profile_steps takes two steps, the first and the last, such as "
            f"10,20. Received: profile_steps={config.profile_steps}"
        )
    return Stops(config, data, (first, last))


def _multiple_after(step, period):
    return (step // period + 1) * period
