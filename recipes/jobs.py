"""Runs of a sweep as processes, some at a time."""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

from recipes import runs
from recipes.errors import RecipeError
from recipes.groups import argument

PROGRAM = pathlib.Path(__file__).with_name("imagenet.py")
# What the program prints, in the workdir of its run.
LOG = "output.log"
POLL_SECONDS = 0.5
# How long a run may take to save after SIGTERM.
GRACE_SECONDS = 60
_SIGNAL_OF_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2).

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclasses.dataclass
class Job:
    """A run of a sweep and how it stands.

    Attributes:
        cell: The `grid.Cell` that says what to run.
        status: `"waiting"`, `"running"`, `"done"` or `"failed"`.
        error: Why it failed, the last line that it printed.
        process: The process while it runs.
        slot: Which of the jobs at a time it is, from 0.
    """

    cell: object
    status: str = WAITING
    error: str | None = None
    process: subprocess.Popen | None = None
    slot: int | None = None

    @property
    def folder(self):
        """The workdir of the run."""
        return self.cell.config.folder

    @property
    def log(self):
        """Where the run's output goes."""
        return self.folder / LOG

    def run(self):
        """The `runs.Run` as its workdir tells it now; None before a start."""
        try:
            return runs.load(self.folder)
        except RecipeError:
            return None

    def progress(self):
        """How much of the training is done, from 0 to 1."""
        run, config = self.run(), self.cell.config
        if run is None or not run.rows:
            return 0.0
        if config.train_steps is not None:
            return min(run.rows[-1]["step"] / config.train_steps, 1.0)
        return min(run.epoch / config.train_epochs, 1.0)


def make(cells):
    """A job a cell; those that ended in an earlier sweep are done."""
    jobs = [Job(cell) for cell in cells]
    for job in jobs:
        run = job.run()
        if run is not None and run.is_finished:
            job.status = DONE
    return jobs


def finish(jobs, shares, watch):
    """Runs what is not done, as many at a time as there are shares.

    A run that fails leaves the others as they are.

    Args:
        jobs: List of `Job`.
        shares: List of `shares.Share`, the devices of each job at a time.
        watch: `f(jobs)` is called all the time that runs are going on.

    Raises:
        KeyboardInterrupt: after every running one has saved and ended.
    """
    waiting = [job for job in jobs if job.status == WAITING]
    free = list(range(len(shares)))
    running = []
    with _stoppable(running):
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                job.slot = free.pop(0)
                _start(job, shares[job.slot])
                running.append(job)
            time.sleep(POLL_SECONDS)
            for job in [j for j in running if j.process.poll() is not None]:
                _end(job)
                free.append(job.slot)
                running.remove(job)
            watch(jobs)


def _start(job, share):
    job.folder.mkdir(parents=True, exist_ok=True)
    given = [argument(*setting) for setting in job.cell.settings.items()]
    with job.log.open("ab") as log:
        job.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *given],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **share.environment},
            # A terminal's Ctrl-C goes to the sweep alone, which passes it on.
            start_new_session=True,
            preexec_fn=lambda: _settle(share),
        )
    job.status = RUNNING


def _settle(share):
    """In the new process: its cores, and its end if the sweep is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_OF_PARENT, signal.SIGTERM)
        if share.cores:
            os.sched_setaffinity(0, share.cores)


def _end(job):
    run = job.run()
    if job.process.returncode == 0 and run is not None and run.is_finished:
        job.status = DONE
        return
    job.status = FAILED
    lines = job.log.read_text(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    reason = (errors or lines or ["it printed nothing"])[-1]
    job.error = (
        f"exit code {job.process.returncode}: {reason.removeprefix('error: ')}"
    )


@contextlib.contextmanager
def _stoppable(running):
    """Ends every running job, each after a save, where the block is left."""

    def stop(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for job in running:
            job.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for job in running:
            try:
                job.process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                job.process.kill()
                job.process.wait()
            job.status = WAITING
