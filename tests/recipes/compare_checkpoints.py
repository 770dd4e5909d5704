"""Compares the checkpoints of two runs bit for bit."""

import time

import numpy as np

from recipes.training import checkpoints
from tests.recipes.small_runs import rows


def wait_for(path, process, seconds=120):
    """Waits until a running process has written a file."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def timeless(folder):
    """Returns the metrics entries without times and speeds."""
    return [
        {
            key: value
            for key, value in row.items()
            if "per_second" not in key and "wait" not in key
        }
        for row in rows(folder)
    ]


def newest(folder):
    """Returns the path of a run's newest checkpoint."""
    return checkpoints.CheckpointManager(folder, 2).paths()[0]


def arrays(path):
    """Returns a dict from names to saved variables."""
    with np.load(path) as file:
        return {
            name: file[name]
            for name in file.files
            if name != checkpoints.METADATA_MEMBER
        }


def assert_equal_checkpoints(first, second):
    """Checks that two checkpoints of the same step are identical."""
    assert first.name == second.name
    ours, theirs = arrays(first), arrays(second)
    assert set(ours) == set(theirs) and len(ours) > 10
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
