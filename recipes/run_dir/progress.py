"""The progress bar of a run."""

import math

from rich import progress
from rich.console import Console
from rich.table import Column

# Fraction of the step time spent waiting for input above which it is shown.
MIN_INPUT_WAIT = 0.05
# An input pipeline that alone is this many times as fast as training does not
# limit it: steps then wait by chance.
FAST_INPUT = 1.5


class Progress:
    """Prints one line per epoch and, on a terminal, a bar over all steps.

    Args:
        task: The `Task` of the run.
        data: Its `Data`.
        step: Step that training resumes from.
        input_rate: Images per second of the input pipeline alone.
    """

    def __init__(self, task, data, step, input_rate):
        self.task = task
        self.data = data
        self.step = step
        self.input_rate = input_rate
        self.console = Console()
        width = 2 * len(str(data.num_steps)) + 1
        self.bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}"),
            progress.BarColumn(bar_width=12),
            progress.MofNCompleteColumn(
                table_column=Column(no_wrap=True, min_width=width)
            ),
            # The only column that is cut on a narrow terminal.
            progress.TextColumn(
                "{task.fields[values]}",
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            progress.TimeRemainingColumn(
                table_column=Column(no_wrap=True, min_width=7)
            ),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.training = "starting: the first step takes longest"
        self.evaluation = ""
        self._is_evaluated = False

    def __enter__(self):
        self.bar_task = self.bar.add_task(
            "train",
            total=self.data.num_steps,
            completed=self.step,
            epoch=self._epoch(),
            values=self.training,
        )
        self.bar.start()
        return self

    def __exit__(self, *error):
        self.bar.stop()

    def update(self, step):
        """Shows the current step, without fetching metrics."""
        self.step = step
        self.bar.update(self.bar_task, completed=step, epoch=self._epoch())

    def show(self, metrics):
        """Shows a metrics entry."""
        if "train/loss" in metrics:
            self.training = self._describe(metrics)
        evaluated = _select_split(metrics, "eval")
        if evaluated:
            text = self.task.evaluation_progress.format(**evaluated)
            self.evaluation = f"  {text}"
            self._is_evaluated = True
        self.bar.update(self.bar_task, values=self.training + self.evaluation)

    def end_epoch(self):
        """Prints the line of an epoch above the bar."""
        line = (
            f"epoch {self._epoch()}  step {self.step}/"
            f"{self.data.num_steps}  {self.training}"
        )
        if self._is_evaluated:
            line += self.evaluation
        self._is_evaluated = False
        if self.console.is_terminal:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def _epoch(self):
        done = math.ceil(self.step / self.data.steps_per_epoch)
        return f"{max(done, 1)}/{self.data.num_epochs}"

    def _describe(self, metrics):
        trained = _select_split(metrics, "train")
        text = self.task.training_progress.format(**trained)
        if "images_per_second" in trained:
            text += f"  {trained['images_per_second']:,.0f} images/s"
        waits = trained.get("input_wait", 0.0)
        if waits > MIN_INPUT_WAIT and self._input_limits(
            trained["images_per_second"]
        ):
            text += f"  waits {waits:.0%} for input"
        return text

    def _input_limits(self, rate):
        return self.input_rate < FAST_INPUT * rate


def _select_split(metrics, split):
    """Returns the metrics of a split, without its name in the keys."""
    prefix = f"{split}/"
    return {
        key.removeprefix(prefix): value
        for key, value in metrics.items()
        if key.startswith(prefix)
    }
