"""Sweeps of a stand-in for the training program, here and as processes."""

import json
import os
import pathlib
import subprocess
import sys
import time

from recipes.experiments import grid
from tests.recipes.command_line import ROOT

PROGRAM = str(ROOT / "recipes" / "sweep.py")
STANDIN = pathlib.Path(__file__).with_name("stand_in.py")
# The program, which starts the stand-in.
_WITH_STANDIN = f"""
import pathlib, runpy, sys
sys.path[0] = {str(ROOT)!r}
from recipes.experiments import scheduler
scheduler.PROGRAM = pathlib.Path({str(STANDIN)!r})
scheduler.POLL_SECONDS = 0.05
runpy.run_path({PROGRAM!r}, run_name="__main__")
"""


def start(*arguments, standin=True, **environment):
    """The running program, warnings as errors."""
    what = ["-c", _WITH_STANDIN] if standin else [PROGRAM]
    return subprocess.Popen(
        [sys.executable, "-W", "error", *what, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        text=True,
        # A group of its own, for what a terminal sends to one.
        start_new_session=True,
    )


def finish(*arguments, standin=True, **environment):
    """Runs the program to its end: exit code, output, errors."""
    with start(*arguments, standin=standin, **environment) as process:
        output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def cells(folder, *axes, **settings):
    """The cells of a sweep of the stand-in."""
    given = {"train_steps": 4, **settings}
    return grid.make(folder, given, [grid.parse_axis(axis) for axis in axes])


def behave(folder, **behaviours):
    """Says what runs do, by what stands behind the `=` of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({f"norm={k}": v for k, v in behaviours.items()})
    (folder / "behaviour.json").write_text(text)


def starts(workdir):
    """The arguments that a run was started with, each time."""
    path = workdir / "starts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def results(folder):
    """results.json, by the names of runs; NaN is no JSON."""

    def refuse(constant):
        raise AssertionError(constant)

    text = (folder / "results.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    return {run["name"]: run for run in found["runs"]}


def wait_for(path, process=None, seconds=60):
    """Until a file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        assert process is None or process.poll() is None, path
        time.sleep(0.02)


def processes(text):
    """Ids of the processes whose command line holds a text."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().decode(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # It ended meanwhile.
    return found
