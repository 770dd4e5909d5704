"""Compares the checkpoints of two runs bit for bit."""

import time

import numpy as np

from recipes.training import checkpoints
from tests.recipes.small_runs import rows


def wait_for(path, process, seconds=120):
    """Waits until a running process has made a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def timeless(folder):
    """The rows without what a clock said."""
    return [
        {
            key: value
            for key, value in row.items()
            if "per_second" not in key and "wait" not in key
        }
        for row in rows(folder)
    ]


def newest(folder):
    """The path of a run's newest save."""
    return checkpoints.CheckpointManager(folder, 2).paths()[0]


def arrays(path):
    """Every saved variable by its name."""
    with np.load(path) as file:
        return {
            name: file[name]
            for name in file.files
            if name != checkpoints.METADATA_MEMBER
        }


def require_equal_saves(first, second):
    """Checks that two saves of one step hold the same bits."""
    assert first.name == second.name
    ours, theirs = arrays(first), arrays(second)
    assert set(ours) == set(theirs) and len(ours) > 10
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
