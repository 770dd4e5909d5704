"""The progress bar of a run."""

import math

from rich import progress
from rich.console import Console
from rich.table import Column

# Share of the time that a step may wait for input before the bar says so.
WAITS = 0.05


class Progress:
    """A bar over all steps on a terminal, a line an epoch elsewhere.

    Args:
        data: The `Data` of the run.
        step: The step that it goes on from.
    """

    def __init__(self, data, step):
        self.data = data
        self.step = step
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

    def __enter__(self):
        self.task = self.bar.add_task(
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
        self.bar.update(self.task, completed=step, epoch=self._epoch())

    def show(self, values):
        """Shows a row of the records."""
        if "eval/accuracy" in values:
            self.evaluation = f"  eval {values['eval/accuracy']:.2%}"
        if "train/loss" in values:
            self.training = _describe(values)
        self.bar.update(self.task, values=self.training + self.evaluation)

    def end_epoch(self):
        """The line of an epoch, where no bar is seen."""
        if not self.console.is_terminal:
            print(
                f"epoch {self._epoch()}  step {self.step}/"
                f"{self.data.num_steps}  {self.training}{self.evaluation}",
                flush=True,
            )

    def _epoch(self):
        done = math.ceil(self.step / self.data.steps_per_epoch)
        return f"{max(done, 1)}/{self.data.num_epochs}"


def _describe(values):
    text = (
        f"loss {values['train/loss']:.4f}  "
        f"accuracy {values['train/accuracy']:.2%}"
    )
    if "train/images_per_second" in values:
        text += f"  {values['train/images_per_second']:,.0f} images/s"
    waits = values.get("train/input_wait", 0.0)
    if waits > WAITS:
        text += f"  waits {waits:.0%} for input"
    return text
