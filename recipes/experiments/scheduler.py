"""Runs the cells of a sweep as processes, several at a time."""

import concurrent.futures
import dataclasses
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time

from recipes.errors import RecipeError
from recipes.experiments.grid import Cell
from recipes.experiments.grid import format_argument
from recipes.run_dir import lock
from recipes.run_dir import recorded_run
from recipes.run_dir import run_dir
from recipes.training.signals import DeferredInterrupts

LAUNCHER = pathlib.Path(__file__).with_name("launcher.py")
POLL_SECONDS = 0.2
# Time that a run has for its checkpoint after SIGTERM.
GRACE_SECONDS = 60
MAX_REASON_LENGTH = 500

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclasses.dataclass
class Job:
    """A cell and the state of its run.

    Attributes:
        cell: The `grid.Cell` to run.
        status: `"waiting"`, `"running"`, `"done"` or `"failed"`.
        error: Why the run failed.
        process: Its process, once started.
    """

    cell: Cell
    status: str = WAITING
    error: str | None = None
    process: subprocess.Popen | None = None

    def __post_init__(self):
        if self.load_run() is not None:
            self.status = DONE

    @property
    def log(self):
        """Path of the run's output."""
        return self.cell.config.folder / "output.log"

    def load_run(self):
        """Loads the run if it is finished and long enough, else None."""
        config = self.cell.config
        try:
            run = recorded_run.load_run(config.folder, [type(config)])
        except RecipeError:
            return None
        is_short = run_dir.extends_training(
            run.config_class, run.config, config.to_dict()
        )
        return run if run.is_finished and not is_short else None


def await_workdirs(cells):
    """Waits until the runs of a killed sweep have saved and ended.

    A workdir that stays in use fails its own run only.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    for cell in cells:
        if lock.is_locked(cell.config.folder):
            print(f"waiting for {cell.name} to end", flush=True)
        while lock.is_locked(cell.config.folder):
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)


def run_jobs(jobs, shares, on_end):
    """Runs all waiting jobs, as many at a time as there are shares.

    Args:
        jobs: List of `Job`.
        shares: List of `gpu_assignment.Share`.
        on_end: `f(job)` is called after each job.

    Raises:
        KeyboardInterrupt: with the number of the signal, after Ctrl-C or
            SIGTERM, once all running jobs have saved and ended.
    """
    free = queue.SimpleQueue()
    for share in shares:
        free.put(share)
    start_lock, stopping = threading.Lock(), threading.Event()

    def run_job(job):
        # The thread lives as long as its process, which gets SIGTERM when the
        # thread that started it ends.
        share = free.get()
        with start_lock:
            if stopping.is_set():
                return job
            log_start = _start(job, share)
        job.process.wait()
        _set_result(job, log_start, stopping.is_set())
        free.put(share)
        return job

    with (
        DeferredInterrupts() as interrupts,
        concurrent.futures.ThreadPoolExecutor(len(shares)) as pool,
    ):
        waiting = [job for job in jobs if job.status == WAITING]
        pending = {pool.submit(run_job, job) for job in waiting}
        try:
            while pending and not interrupts.requested:
                ended, pending = concurrent.futures.wait(
                    pending, POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
                )
                for future in ended:
                    on_end(future.result())
        finally:
            with start_lock:
                stopping.set()
            _stop(jobs, pending, interrupts)
    if any(job.status == WAITING for job in jobs):
        raise KeyboardInterrupt(interrupts.number)


def _start(job, share):
    """Starts the process, and returns where its output begins in the log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    given = [format_argument(*item) for item in job.cell.settings.items()]
    cores = ",".join(map(str, share.cores))
    launcher = [sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), cores]
    with job.log.open("ab") as log:
        start = log.tell()
        job.process = subprocess.Popen(
            [*launcher, job.cell.program.script, *given],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **share.environment},
            # Ctrl-C in a terminal reaches the sweep alone, which forwards it.
            start_new_session=True,
        )
    job.status = RUNNING
    return start


def _set_result(job, log_start, is_stopping):
    code = job.process.returncode
    if code == 0 and job.load_run() is not None:
        job.status = DONE
    elif is_stopping:
        job.status = WAITING
    else:
        job.status = FAILED
        names = {-each: f"ended by {each.name}" for each in signal.Signals}
        names[-signal.SIGKILL] += ", maybe for lack of memory"
        ended = names.get(code, f"exit code {code}")
        job.error = f"{ended}: {_read_reason(job.log, log_start)}"


def _read_reason(log, start):
    """Reads the error of a run, or else the last line of its output."""
    text = log.read_bytes()[start:].decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    last = (errors or lines or ["no output"])[-1]
    return last.removeprefix("error: ")[:MAX_REASON_LENGTH]


def _stop(jobs, pending, interrupts):
    """Ends all processes after they have saved a checkpoint."""
    running = [job.process for job in jobs if job.status == RUNNING]
    if running:
        print(
            f"stopping: {len(running)} runs save a checkpoint; press Ctrl-C "
            "again to kill them",
            flush=True,
        )
    for process in running:
        process.terminate()
    num_keys = interrupts.num_keys
    deadline = time.monotonic() + GRACE_SECONDS
    while pending:
        if time.monotonic() > deadline or interrupts.num_keys > num_keys:
            for process in running:
                process.kill()
        _, pending = concurrent.futures.wait(pending, POLL_SECONDS)
