"""The training loop: steps, and what happens where they stop."""

import contextlib
import math
import signal
import time

from keras_norm.training import NonFiniteError
from recipes.errors import RecipeError
from recipes.run_dir.progress import Progress
from recipes.training import checkpoints
from recipes.training import schedules
from recipes.training import stops
from recipes.training.preemption import Preempted
from recipes.training.profiling import Profile


class Training:
    """Trains from one step to the last.

    Nothing is fetched from the devices but where `Stops` says so.

    Args:
        config: The `Config` of the run.
        task: Its `Task`.
        data: Its `Data`.
        steps: Its `Steps`.
        records: Its `Records`.
        save: `f(step, seconds)` saves.
        broadcast: Its `Broadcast`.
        step: The step that it goes on from.
        seconds: How long earlier parts of the run took.
        begin: `f()` is called after the first step, the first thing that writes
            to the workdir.
        input_rate: Images a second of the input alone.
    """

    def __init__(
        self,
        config,
        task,
        data,
        steps,
        records,
        save,
        broadcast,
        step,
        seconds,
        begin=lambda: None,
        input_rate=math.inf,
    ):
        self.config = config
        self.task = task
        self.data = data
        self.steps = steps
        self.trainer = steps.trainer
        self.records = records
        self.save = save
        self.broadcast = broadcast
        self.step = step
        self.seconds_before = seconds
        self.begin = begin
        self.input_rate = input_rate
        self.rate = schedules.make(config, data.num_steps, data.steps_per_epoch)
        self.stops = stops.make(config, data)
        self._timed_step, self._timed_at, self._waited = None, None, []

    @property
    def seconds(self):
        """How long the run took, earlier parts included."""
        return self.seconds_before + time.perf_counter() - self._started

    def run(self, preemption):
        """Trains to the end.

        Args:
            preemption: A `Preemption`, entered after the first step: before it
                there is nothing to save.

        Raises:
            Preempted: after a save, where that was asked.
            RecipeError: if a loss or gradient is not finite, or nothing can
                be saved.
        """
        self._started = time.perf_counter()
        batches = self.steps.batches(self.step)
        folder = self.records.events_folder
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(
                Progress(self.task, self.data, self.step, self.input_rate)
            )
            profile = stack.enter_context(Profile(self.stops.profile, folder))
            is_first = True
            while not self.stops.is_last(self.step):
                profile.move(self.step)
                end = self.stops.next(self.step)
                values, waited = self.steps.train(batches, end - self.step)
                self.step = end
                self._waited.append(waited)
                progress.move(end)
                if is_first:
                    self._start(values, progress)
                    stack.enter_context(preemption)
                    is_first = False
                self._stop(values, progress)
                self._heed(preemption)

    def _start(self, values, progress):
        """What the first steps of this process come to: the run is sound."""
        row = self._row(values)
        self._raise_if_not_finite()
        self.begin()
        progress.show(row)

    def _stop(self, values, progress):
        step = self.step
        ends_epoch = self.stops.ends_epoch(step)
        if self.stops.logs(step) or ends_epoch or self.stops.saves(step):
            self._raise_if_not_finite()
        if self.stops.logs(step):
            row = self._row(values)
            self._write(row)
            progress.show(row)
        if self.stops.evaluates(step):
            row = self.evaluate()
            progress.show(row)
        if ends_epoch:
            progress.end_epoch()
        if self.stops.saves(step):
            self.save(step, self.seconds)
            self._restart_clock()

    def evaluate(self):
        """Evaluates, writes the row and returns it."""
        values = self.steps.evaluate()
        row = {f"eval/{name}": value for name, value in values.items()}
        self._write(row)
        self._restart_clock()
        return row

    def _restart_clock(self):
        """From here on it is training time again."""
        self._timed_step, self._waited = self.step, []
        self._timed_at = time.perf_counter()

    def _row(self, values):
        row = {
            f"train/{name}": float(values[name]) for name in self.trainer.VALUES
        }
        done = int(self.trainer.optimizer.iterations.numpy())
        row["train/learning_rate"] = float(self.rate(max(done - 1, 0)))
        waited = sum(float(seconds) for seconds in self._waited)
        if self._timed_at is not None and self._timed_step < self.step:
            seconds = time.perf_counter() - self._timed_at
            images = (self.step - self._timed_step) * (
                self.data.global_batch_size
            )
            row["train/images_per_second"] = images / seconds
            if self.steps.is_timed:
                row["train/input_wait"] = min(waited / seconds, 1.0)
        self._restart_clock()
        return row

    def _write(self, row):
        epoch = self.step / self.data.steps_per_epoch
        self.records.add(self.step, epoch, row)

    def _raise_if_not_finite(self):
        try:
            self.trainer.raise_if_not_finite()
        except NonFiniteError as error:
            raise RecipeError(
                f"{error}. Lower --learning_rate, lengthen --warmup_epochs or "
                "set --clip_global_norm; --nan_policy=skip leaves such updates "
                f"out.{checkpoints.earlier(self.config.folder)}"
            ) from error

    def _heed(self, preemption):
        asked = preemption.number is not None
        if self.broadcast.is_needed:
            # All workers ask each other at the same steps.
            if not self.stops.logs(self.step):
                return
            asked = self.broadcast.any(asked)
        if asked and not self.stops.is_last(self.step):
            self._raise_if_not_finite()
            self.save(self.step, self.seconds)
            number = preemption.number or signal.SIGTERM
            raise Preempted(self.step, number)
