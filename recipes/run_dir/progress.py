"""The progress bar of a run."""

import math

from rich import progress
from rich.console import Console
from rich.table import Column

# Share of the time that a step may wait for input before that is said.
WAITS = 0.05
# An input that by itself is that many times as fast as training does not limit
# it: what a step waits then is chance.
FAST_INPUT = 1.5


class Progress:
    """A line an epoch, and below them, on a terminal, a bar over all steps.

    Args:
        task: The `Task` of the run.
        data: Its `Data`.
        step: The step that it goes on from.
        input_rate: Images a second of the input alone.
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
            # The one that a narrow terminal cuts.
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
        self.row = self.bar.add_task(
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

    def move(self, step):
        """Shows how far training is; fetches nothing."""
        self.step = step
        self.bar.update(self.row, completed=step, epoch=self._epoch())

    def show(self, values):
        """Shows a row of the records."""
        if "train/loss" in values:
            self.training = self._describe(values)
        evaluated = _of_split(values, "eval")
        if evaluated:
            text = self.task.evaluation_progress.format(**evaluated)
            self.evaluation = f"  {text}"
            self._is_evaluated = True
        self.bar.update(self.row, values=self.training + self.evaluation)

    def end_epoch(self):
        """The line of an epoch, which stays above the bar."""
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

    def _describe(self, values):
        trained = _of_split(values, "train")
        text = self.task.training_progress.format(**trained)
        if "images_per_second" in trained:
            text += f"  {trained['images_per_second']:,.0f} images/s"
        waits = trained.get("input_wait", 0.0)
        if waits > WAITS and self._input_limits(trained["images_per_second"]):
            text += f"  waits {waits:.0%} for input"
        return text

    def _input_limits(self, rate):
        return self.input_rate < FAST_INPUT * rate


def _of_split(values, split):
    """The values of a split, by their names without it."""
    parts = {name: name.partition("/") for name in values}
    return {
        name: values[key] for key, (of, _, name) in parts.items() if of == split
    }
