"""Runs of a sweep as processes, some at a time."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

from recipes.classification.config import Config
from recipes.errors import RecipeError
from recipes.experiments.aggregate import argument
from recipes.experiments.programs import CONFIG_CLASSES
from recipes.run_dir import lock
from recipes.run_dir import run_dir
from recipes.run_dir import runs
from recipes.training.signals import DeferredInterrupts

PROGRAM = pathlib.Path(__file__).parent.parent / "imagenet.py"
LAUNCH = pathlib.Path(__file__).with_name("launcher.py")
# What the program prints, in the workdir of its run.
LOG = "output.log"
POLL_SECONDS = 0.5
# How long a run may take to save after SIGTERM.
GRACE_SECONDS = 60
# Of the line that says why a run failed.
MAX_REASON = 500

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
        log_start: Where in its log the output of this process begins.
    """

    cell: object
    status: str = WAITING
    error: str | None = None
    process: subprocess.Popen | None = None
    slot: int | None = None
    log_start: int = 0
    _ended: runs.Run | None = dataclasses.field(default=None, init=False)

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
            return runs.load(self.folder, CONFIG_CLASSES)
        except RecipeError:
            return None

    def ended_run(self):
        """The `runs.Run` if it was trained to its end, else None."""
        if self._ended is None and self.status != RUNNING:
            run = self.run()
            if run is not None and run.is_finished and self._is_long(run):
                self._ended = run
        return self._ended

    def _is_long(self, run):
        """Whether it was trained for as long as it should be now."""
        return not run_dir.extends_training(
            Config, run.config, self.cell.config.to_dict()
        )

    def progress(self):
        """How much of the training is done, from 0 to 1."""
        run, config = self.run(), self.cell.config
        if run is None or not run.rows:
            return 0.0
        done, whole = run.epoch, config.train_epochs
        if config.train_steps is not None:
            done, whole = run.rows[-1]["step"], config.train_steps
        # Of no epochs at all, a run trains one step.
        return min(done / whole, 1.0) if whole else 1.0


def make(cells):
    """A job a cell; those that ended in an earlier sweep are done."""
    jobs = [Job(cell) for cell in cells]
    for job in jobs:
        if job.ended_run() is not None:
            job.status = DONE
    return jobs


def await_workdirs(cells):
    """Waits until runs of a sweep that was killed have saved and ended.

    One that takes longer than they may is left to the run that needs its
    workdir, which says who uses it.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    told = False
    while time.monotonic() < deadline:
        used = [c.name for c in cells if lock.is_locked(c.config.folder)]
        if not used:
            return
        if not told:
            told = True
            print(f"waiting for the end of {', '.join(used)}", flush=True)
        time.sleep(POLL_SECONDS)


def finish(jobs, shares, watch):
    """Runs what is not done, as many at a time as there are shares.

    A run that fails leaves the others as they are.

    Args:
        jobs: List of `Job`.
        shares: List of `shares.Share`, the devices of each job at a time.
        watch: `f(jobs)` is called all the time that runs are going on.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once every running one has
            saved and ended.
    """
    waiting = [job for job in jobs if job.status == WAITING]
    free = list(range(len(shares)))
    running = []
    with DeferredInterrupts() as interrupts:
        try:
            while (waiting or running) and not interrupts.requested:
                while waiting and free and not interrupts.requested:
                    job = waiting.pop(0)
                    job.slot = free.pop(0)
                    _start(job, shares[job.slot])
                    running.append(job)
                watch(jobs)
                time.sleep(POLL_SECONDS)
                for job in [j for j in running if j.process.poll() is not None]:
                    _end(job)
                    free.append(job.slot)
                    running.remove(job)
            watch(jobs)
        finally:
            _stop(running, interrupts)
    if any(job.status == WAITING for job in jobs):
        raise KeyboardInterrupt


def _start(job, share):
    job.folder.mkdir(parents=True, exist_ok=True)
    given = [argument(*setting) for setting in job.cell.settings.items()]
    cores = ",".join(map(str, share.cores))
    python = [sys.executable, "-I", "-S"]
    with job.log.open("ab") as log:
        job.log_start = log.tell()
        job.process = subprocess.Popen(
            [*python, LAUNCH, str(os.getpid()), cores, PROGRAM, *given],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **share.environment},
            # A terminal's Ctrl-C goes to the sweep alone, which passes it on.
            start_new_session=True,
        )
    job.status = RUNNING


def _end(job):
    """Notes how a process ended."""
    # While it is running, nothing of it has ended.
    job.status = FAILED
    if job.process.returncode == 0 and job.ended_run() is not None:
        job.status = DONE
        return
    code = job.process.returncode
    how = {-each.value: f"ended by {each.name}" for each in signal.Signals}
    how[-signal.SIGKILL] += ", as where memory runs out"
    ended = how.get(code, f"exit code {code}")
    job.error = f"{ended}: {reason(job.log, job.log_start)}"


def reason(log, start):
    """The error that a process printed, or what it printed last.

    Args:
        log: Path of the file that its output goes to.
        start: Where in it the output of this process begins.
    """
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or ["it printed nothing"])[-1]
    return last.removeprefix("error: ")[:MAX_REASON]


def _stop(running, interrupts):
    """Ends every process, each after a save."""
    if not running:
        return
    print(
        f"stopping: {len(running)} running save first; Ctrl-C again ends them "
        "at once",
        flush=True,
    )
    for job in running:
        job.process.terminate()
    num_keys = interrupts.num_keys
    deadline = time.monotonic() + GRACE_SECONDS
    for job in running:
        while job.process.poll() is None:
            if time.monotonic() > deadline or interrupts.num_keys > num_keys:
                job.process.kill()
            time.sleep(POLL_SECONDS / 10)
        job.status = WAITING
        if job.process.returncode == 0:
            _end(job)
