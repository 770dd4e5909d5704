"""The training loop, and when it logs, evaluates and saves checkpoints."""

import contextlib
import dataclasses
import math
import time

from keras_norm.training import NonFiniteError
from recipes.errors import RecipeError
from recipes.run_dir import run_dir
from recipes.run_dir.progress import Progress
from recipes.training import learning_rate
from recipes.training.profiling import Profile
from recipes.training.signals import Preempted


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


class TrainingLoop:
    """Trains from one step to the last.

    Metrics stay on the devices until the `StepSchedule` asks for them.

    Args:
        config: The config of the run.
        task: Its `Task`.
        data: Its `Data`.
        steps: Its `CompiledSteps`.
        metrics_log: Its `MetricsLog`.
        save: `f(step, seconds)` writes a checkpoint.
        broadcast: Its `ChiefBroadcast`.
        step: Step to resume from.
        seconds: Training time before that step.
        on_start: `f()` is called after the first step, before anything is
            written to the workdir.
        input_rate: Images per second of the input pipeline alone.
    """

    def __init__(
        self,
        config,
        task,
        data,
        steps,
        metrics_log,
        save,
        broadcast,
        step,
        seconds,
        on_start=lambda: None,
        input_rate=math.inf,
    ):
        self.config = config
        self.task = task
        self.data = data
        self.steps = steps
        self.trainer = steps.trainer
        self.metrics_log = metrics_log
        self.save = save
        self.broadcast = broadcast
        self.step = step
        self.seconds_before = seconds
        self.on_start = on_start
        self.input_rate = input_rate
        self.learning_rate = learning_rate.make_schedule(
            config, data.num_steps, data.steps_per_epoch
        )
        self.schedule = make_step_schedule(config, data)
        self._timed_step, self._timed_at, self._waited = None, None, []

    @property
    def seconds(self):
        """Training time, including the time before the run was resumed."""
        return self.seconds_before + time.perf_counter() - self._started

    def run(self, preemption):
        """Trains to the last step.

        Args:
            preemption: A `Preemption`. It is entered after the first step:
                before that there is nothing to save.

        Raises:
            Preempted: after saving a checkpoint, if a signal arrived.
            RecipeError: if a loss or gradient is not finite, or a checkpoint
                cannot be written.
        """
        self._started = time.perf_counter()
        batches = self.steps.training_batches(self.step)
        folder = self.metrics_log.events_folder
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(
                Progress(self.task, self.data, self.step, self.input_rate)
            )
            profile = stack.enter_context(
                Profile(self.schedule.profile, folder)
            )
            is_first = True
            while not self.schedule.is_last(self.step):
                profile.update(self.step)
                stop = self.schedule.next_stop(self.step)
                logs, waited = self.steps.train(batches, stop - self.step)
                self.step = stop
                self._waited.append(waited)
                progress.update(stop)
                if is_first:
                    self._start_run(logs, progress)
                    stack.enter_context(preemption)
                    is_first = False
                self._finish_step(logs, progress)
                self._exit_if_preempted(preemption)

    def _start_run(self, logs, progress):
        """Checks the first step, then lets the run write to its workdir."""
        metrics = self._training_metrics(logs)
        self._raise_if_not_finite()
        self.on_start()
        progress.show(metrics)

    def _finish_step(self, logs, progress):
        """Logs, evaluates and saves as scheduled."""
        step = self.step
        logs_now = self.schedule.logs_after(step)
        saves_now = self.schedule.saves_after(step)
        if logs_now or saves_now:
            self._raise_if_not_finite()
        if logs_now:
            metrics = self._training_metrics(logs)
            self._log(metrics)
            progress.show(metrics)
        if self.schedule.evaluates_after(step):
            progress.show(self.evaluate())
        if self.schedule.ends_epoch(step):
            progress.end_epoch()
        if saves_now:
            self.save(step, self.seconds)
            self._restart_timer()

    def evaluate(self):
        """Evaluates, logs the metrics and returns them."""
        metrics = self.steps.evaluate()
        metrics = {f"eval/{name}": value for name, value in metrics.items()}
        self._log(metrics)
        self._restart_timer()
        return metrics

    def _restart_timer(self):
        """Starts to measure the time of training steps."""
        self._timed_step, self._waited = self.step, []
        self._timed_at = time.perf_counter()

    def _training_metrics(self, logs):
        metrics = {
            f"train/{name}": float(logs[name]) for name in self.trainer.METRICS
        }
        num_updates = int(self.trainer.optimizer.iterations.numpy())
        metrics["train/learning_rate"] = float(
            self.learning_rate(max(num_updates - 1, 0))
        )
        waited = sum(float(seconds) for seconds in self._waited)
        if self._timed_at is not None and self._timed_step < self.step:
            seconds = time.perf_counter() - self._timed_at
            num_images = (self.step - self._timed_step) * (
                self.data.global_batch_size
            )
            metrics["train/images_per_second"] = num_images / seconds
            if self.steps.is_timed:
                metrics["train/input_wait"] = min(waited / seconds, 1.0)
        self._restart_timer()
        return metrics

    def _log(self, metrics):
        epoch = self.step / self.data.steps_per_epoch
        self.metrics_log.add(self.step, epoch, metrics)

    def _raise_if_not_finite(self):
        try:
            self.trainer.raise_if_not_finite()
        except NonFiniteError as error:
            newest = run_dir.describe_newest_checkpoint(self.config.folder)
            raise RecipeError(
                f"{error}. Lower --learning_rate, lengthen --warmup_epochs or "
                "set --clip_global_norm; --nan_policy=skip leaves such updates "
                f"out.{newest}"
            ) from error

    def _exit_if_preempted(self, preemption):
        is_preempted = preemption.number is not None
        if self.broadcast.is_needed:
            # All workers exchange this at the same steps.
            if not self.schedule.logs_after(self.step):
                return
            is_preempted = self.broadcast.any(is_preempted)
        if is_preempted and not self.schedule.is_last(self.step):
            self._raise_if_not_finite()
            self.save(self.step, self.seconds)
            raise Preempted(self.step, preemption.number)
