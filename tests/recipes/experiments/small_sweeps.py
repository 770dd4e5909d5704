"""Sweeps of a stand-in for the training program."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

from recipes.experiments import grid
from recipes.experiments.programs import PROGRAMS
from tests.recipes.command_line import ROOT

SWEEP = str(ROOT / "recipes" / "sweep.py")
STAND_IN = pathlib.Path(__file__).with_name("stand_in.py")
# The sweep program, which starts the stand-in.
SWEEP_OF_STAND_IN = f"""
import dataclasses, runpy, sys
sys.path[0] = {str(ROOT)!r}
from recipes.experiments.programs import PROGRAMS
for name, program in PROGRAMS.items():
    PROGRAMS[name] = dataclasses.replace(program, script={str(STAND_IN)!r})
sys.argv[0] = {SWEEP!r}
runpy.run_path({SWEEP!r}, run_name="__main__")
"""
PROGRAM = dataclasses.replace(PROGRAMS["imagenet"], script=STAND_IN)


def start(*arguments, stand_in=True):
    """Starts the sweep program, with warnings as errors."""
    program = ["-c", SWEEP_OF_STAND_IN] if stand_in else [SWEEP]
    return subprocess.Popen(
        [sys.executable, "-W", "error", *program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Its own process group, to which a terminal sends Ctrl-C.
        start_new_session=True,
    )


def finish(*arguments, stand_in=True):
    """Runs the sweep program and returns exit code, output and errors."""
    with start(*arguments, stand_in=stand_in) as process:
        output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def make_cells(folder, *axes, program=PROGRAM, **settings):
    given = {"train_steps": 4, **settings}
    parsed = [grid.parse_axis(axis, program) for axis in axes]
    return grid.make_cells(program, folder, given, parsed)


def set_behaviors(folder, **behaviors):
    """Sets the behaviors of the stand-in by norm, see stand_in.py."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({f"norm={k}": v for k, v in behaviors.items()})
    (folder / "behavior.json").write_text(text)


def read_starts(workdir):
    """Reads the arguments of each start of a run."""
    path = workdir / "starts.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def read_results(folder):
    """Reads results.json as a dict by the runs' names; rejects NaN."""

    def reject(constant):
        raise AssertionError(constant)

    text = (folder / "results.json").read_text()
    content = json.loads(text, parse_constant=reject)
    return {run["name"]: run for run in content["runs"]}


def wait_for(path, process=None, seconds=60):
    """Waits until a file exists."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        assert process is None or process.poll() is None, path
        time.sleep(0.02)


def find_processes(text):
    """Finds the ids of processes whose command line contains a text."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().decode(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # The process has ended.
    return [number for number in found if number != os.getpid()]
