"""What happens beside training: records, the progress bar, saves, the stop."""

import math
import time

import keras
from rich import progress
from rich.console import Console

from recipes.errors import RecipeError
from recipes.trainer import VALUES


class Recorder(keras.callbacks.Callback):
    """Writes the rows of `Records`, and stops where a loss is not finite.

    Args:
        records: The `Records` to write to.
        data: The `Data` of the run.
        first_step: The step that training goes on from.
        every: Steps from one training row to the next.
    """

    def __init__(self, records, data, first_step, every):
        super().__init__()
        self.records = records
        self.data = data
        self.step = first_step
        self.every = every
        self.images_per_second = 0.0
        self._learning_rate = None
        self._timed_step, self._timed_at = None, None

    def on_train_batch_begin(self, batch, logs=None):
        # After the step the optimizer knows the next step's rate only.
        if self._writes(self.step + 1):
            rate = self.model.optimizer.learning_rate
            self._learning_rate = float(keras.ops.convert_to_numpy(rate))

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        loss = logs["loss"]
        if not math.isfinite(loss):
            raise RecipeError(
                f"the loss is {loss} at step {self.step}. Lower "
                "--learning_rate or lengthen --warmup_epochs; the last save is "
                "of a step before."
            )
        if self._writes(self.step):
            self._time()
            values = {f"train/{name}": logs[name] for name in VALUES}
            values["train/learning_rate"] = self._learning_rate
            if self.images_per_second:
                values["train/images_per_second"] = self.images_per_second
            self._write(values)

    def on_test_begin(self, logs=None):
        self._timed_at = None  # Evaluation is not training time.

    def on_epoch_end(self, epoch, logs=None):
        self._timed_at = None
        if "val_loss" in logs:
            values = {f"eval/{name}": logs[f"val_{name}"] for name in VALUES}
            values["eval/examples"] = int(logs["val_examples"])
            self._write(values)

    def _writes(self, step):
        return step % self.every == 0 or step == self.data.num_steps

    def _time(self):
        now = time.perf_counter()
        if self._timed_at is not None:
            images = (self.step - self._timed_step) * (
                self.data.global_batch_size
            )
            self.images_per_second = images / (now - self._timed_at)
        self._timed_step, self._timed_at = self.step, now

    def _write(self, values):
        epoch = self.step / self.data.steps_per_epoch
        self.records.add(self.step, epoch, values)


class Progress(keras.callbacks.Callback):
    """A bar over all steps on a terminal, a line an epoch elsewhere.

    Args:
        data: The `Data` of the run.
        recorder: The `Recorder`, whose step and rate it shows.
    """

    def __init__(self, data, recorder):
        super().__init__()
        self.data = data
        self.recorder = recorder
        self.console = Console()
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}"),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[values]}"),
            progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.evaluation = ""

    def on_train_begin(self, logs=None):
        self.task = self.bar.add_task(
            "train",
            total=self.data.num_steps,
            completed=self.recorder.step,
            epoch="",
            values="starting: the first step takes longest",
        )
        self.bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        number = f"{epoch + 1}/{self.data.num_epochs}"
        self.bar.update(self.task, epoch=number)

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update(
            self.task,
            completed=self.recorder.step,
            values=f"{self._describe(logs)}{self.evaluation}",
        )

    def on_epoch_end(self, epoch, logs=None):
        if "val_accuracy" in logs:
            self.evaluation = f"  eval {logs['val_accuracy']:.2%}"
        if not self.console.is_terminal:
            print(
                f"epoch {epoch + 1}/{self.data.num_epochs}  step "
                f"{self.recorder.step}/{self.data.num_steps}  "
                f"{self._describe(logs)}{self.evaluation}",
                flush=True,
            )

    def stop(self):
        """Gives the terminal back, however training ended."""
        self.bar.stop()

    def _describe(self, logs):
        values = f"loss {logs['loss']:.4f}  accuracy {logs['accuracy']:.2%}"
        rate = self.recorder.images_per_second
        return f"{values}  {rate:,.0f} images/s" if rate else values


class Saver(keras.callbacks.Callback):
    """Saves after every epoch, once everything else is written.

    Args:
        checkpoints: The `Checkpoints` to save to.
        seconds_before: How long earlier parts of the run took.
    """

    def __init__(self, checkpoints, seconds_before):
        super().__init__()
        self.checkpoints = checkpoints
        self.seconds_before = seconds_before

    def on_train_begin(self, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = self.seconds_before + time.perf_counter() - self.started
        self.checkpoints.save(self.model, epoch + 1, seconds)


class StopAtLastStep(keras.callbacks.Callback):
    """Ends training in the middle of an epoch where `train_steps` says so.

    Args:
        recorder: The `Recorder` that counts the steps.
        num_steps: Steps of the whole training.
    """

    def __init__(self, recorder, num_steps):
        super().__init__()
        self.recorder = recorder
        self.num_steps = num_steps

    def on_train_batch_end(self, batch, logs=None):
        if self.recorder.step >= self.num_steps:
            self.model.stop_training = True
