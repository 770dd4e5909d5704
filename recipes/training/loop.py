"""The training loop: steps, metrics, evaluations and checkpoints."""

import contextlib
import math
import time

from keras_norm.training import NonFiniteError
from recipes.errors import RecipeError
from recipes.run_dir import run_dir
from recipes.run_dir.progress import Progress
from recipes.training import learning_rate
from recipes.training import periodic_actions
from recipes.training.profiling import Profile
from recipes.training.signals import Preempted


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
        on_end: `f()` is called after the last step, before its evaluation and
            checkpoint.
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
        on_end=lambda: None,
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
        self.on_end = on_end
        self.input_rate = input_rate
        self.learning_rate = learning_rate.make_schedule(
            config, data.num_steps, data.steps_per_epoch
        )
        self.schedule = periodic_actions.make_step_schedule(config, data)
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
        if self.schedule.is_last(step):
            self.on_end()
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
