"""How a sweep stands, live."""

import time

from rich import box
from rich.console import Console
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recipes.experiments import scheduler as jobs_lib
from recipes.experiments import sweep_report

REFRESH_SECONDS = 2.0
# Columns of a terminal that long names of rows get at least.
NAME_WIDTH = 24


class SweepProgress:
    """A live table on a terminal, a line for each run that ends elsewhere.

    Args:
        jobs: List of `jobs.Job`.
        x: Name of the setting along the columns, or None.
        console: Where to show it; None takes the standard output.
    """

    def __init__(self, jobs, x=None, console=None):
        self.jobs = jobs
        self.x = x
        self.console = console or Console(highlight=False)
        self.started = time.monotonic()
        self._done_before = sum(j.status == jobs_lib.DONE for j in jobs)
        self._refreshed = 0.0
        self._told = {id(j) for j in jobs if j.status == jobs_lib.DONE}
        self._live = None

    def __enter__(self):
        if self._told:
            self.console.print(
                f"{len(self._told)} of {len(self.jobs)} runs ended before"
            )
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error):
        if self._live is not None:
            # The last one stays: all of it, however many lines that are.
            self._live.vertical_overflow = "visible"
            self._show()
            self._live.stop()

    def watch(self, jobs):
        """Shows what changed; cheap to call often."""
        for job in jobs:
            ended = job.status in (jobs_lib.DONE, jobs_lib.FAILED)
            if ended and id(job) not in self._told:
                self._told.add(id(job))
                if self._live is None:
                    self.console.print(
                        self._line(job), markup=False, soft_wrap=True
                    )
        now = time.monotonic()
        if self._live is not None and now - self._refreshed > REFRESH_SECONDS:
            self._refreshed = now
            self._show()

    def _show(self):
        self._live.update(self.view(), refresh=True)

    def view(self):
        """What a terminal shows; one that is too low cuts the table."""
        table = sweep_report.make_table(self.jobs, self.x)
        table = _as_rich(table, self.console.width)
        return Group(self._counts(), *self._running(), table)

    def _running(self):
        return [
            _line_of(f"  {job.progress():4.0%}  {job.cell.name}", "dim")
            for job in self.jobs
            if job.status == jobs_lib.RUNNING
        ]

    def _counts(self):
        done = sum(job.status == jobs_lib.DONE for job in self.jobs)
        failed = sum(job.status == jobs_lib.FAILED for job in self.jobs)
        text = f"{done} of {len(self.jobs)} runs done"
        if failed:
            text += f", {failed} failed"
        return _line_of(text + self._left(done + failed))

    def _left(self, ended):
        """An estimate of the time left, once there is something to go by."""
        new = ended - self._done_before
        left = len(self.jobs) - ended
        if new <= 0 or left == 0:
            return ""
        minutes = (time.monotonic() - self.started) / new * left / 60
        return f", about {minutes:.0f} min left"

    def _line(self, job):
        ended = sum(
            j.status in (jobs_lib.DONE, jobs_lib.FAILED) for j in self.jobs
        )
        text = f"{ended}/{len(self.jobs)}  {job.cell.name}"
        if job.status == jobs_lib.FAILED:
            return f"{text}  failed, {job.error}"
        run = job.ended_run()
        accuracy = None if run is None else run.final("eval/accuracy")
        if accuracy is not None:
            text += f"  top-1 {accuracy:.2%}"
        return text + self._left(ended)


def _line_of(text, style=""):
    """Text that is cut where the terminal ends."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _as_rich(table, width):
    """The table, with as much of its values as there is room for."""
    for describe in _DESCRIPTIONS:
        columns = [_column(table, c, describe) for c in table.columns]
        longest = max(map(len, table.rows))
        left = width - min(longest, NAME_WIDTH)
        room = [left := left - 3 - max(map(len, c)) for c in columns]
        if room[-1] >= 0:
            break
    num = max(sum(each >= 0 for each in room), 1)
    shown = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    shown.add_column("", overflow="fold")
    for heading, *_ in columns[:num]:
        shown.add_column(Text(heading), justify="right", no_wrap=True)
    for row, *texts in zip(
        table.rows, *(texts for _, *texts in columns[:num]), strict=True
    ):
        shown.add_row(Text(row), *texts)
    if table.x is not None:
        shown.title = f"test top-1, %, by --{table.x}"
    if num < len(columns):
        shown.caption = f"{len(columns) - num} more in a wider terminal"
    return shown


def _column(table, column, describe):
    """Heading and texts of a column."""
    heading = "test top-1, %"
    if table.x is not None:
        heading = str(column)
    spreads = [table.spread(row, column) for row in table.rows]
    return [heading, *("" if s is None else describe(s) for s in spreads)]


# From the one that says most to the shortest.
_DESCRIPTIONS = (
    lambda spread: f"{spread.text(2, 100)} ({spread.num})",
    lambda spread: spread.text(2, 100),
    lambda spread: f"{spread.mean:.1%}".removesuffix("%"),
)
