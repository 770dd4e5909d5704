"""How a sweep stands, live."""

import time

from rich import box
from rich.console import Console
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recipes import jobs as jobs_lib
from recipes import sweep_table

REFRESH_SECONDS = 2.0


class SweepProgress:
    """A live table on a terminal, a line for each run that ends elsewhere.

    Args:
        jobs: List of `jobs.Job`.
        x: Name of the setting along the columns, or None.
    """

    def __init__(self, jobs, x=None):
        self.jobs = jobs
        self.x = x
        self.console = Console(highlight=False)
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
            self._show()
            self._live.stop()

    def watch(self, jobs):
        """Shows what changed; cheap to call often."""
        for job in jobs:
            ended = job.status in (jobs_lib.DONE, jobs_lib.FAILED)
            if ended and id(job) not in self._told:
                self._told.add(id(job))
                if self._live is None:
                    print(self._line(job), flush=True)
        now = time.monotonic()
        if self._live is not None and now - self._refreshed > REFRESH_SECONDS:
            self._refreshed = now
            self._show()

    def _show(self):
        table = sweep_table.make([job.cell for job in self.jobs], self.x)
        self._live.update(
            Group(_as_rich(table), *self._running(), self._counts()),
            refresh=True,
        )

    def _running(self):
        return [
            Text(f"  {job.progress():4.0%}  {job.cell.name}", "dim")
            for job in self.jobs
            if job.status == jobs_lib.RUNNING
        ]

    def _counts(self):
        done = sum(job.status == jobs_lib.DONE for job in self.jobs)
        failed = sum(job.status == jobs_lib.FAILED for job in self.jobs)
        text = f"{done} of {len(self.jobs)} runs done"
        if failed:
            text += f", {failed} failed"
        return Text(text + self._left(done + failed))

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
        accuracy = job.run().final("eval/accuracy")
        if accuracy is not None:
            text += f"  top-1 {accuracy:.2%}"
        return text + self._left(ended)


def _as_rich(table):
    shown = Table(box=box.SIMPLE)
    shown.add_column("", overflow="fold")
    for column in table.columns:
        heading = "test top-1, %" if column is None else f"{column}"
        shown.add_column(heading, justify="right", no_wrap=True)
    if table.x is not None:
        shown.title = f"test top-1, %, by --{table.x}"
    for row in table.rows:
        texts = []
        for column in table.columns:
            spread = table.spread(row, column)
            texts.append("" if spread is None else _describe(spread))
        shown.add_row(row, *texts)
    return shown


def _describe(spread):
    return f"{spread.text(2, 100)} ({spread.num})"
