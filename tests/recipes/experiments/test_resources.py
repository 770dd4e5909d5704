"""Who of several runs at a time gets which GPUs and cores."""

import os
import pathlib

import pytest

from recipes.errors import RecipeError
from recipes.experiments import resources
from recipes.experiments.resources import Share


def visible(*made):
    return [share.environment["CUDA_VISIBLE_DEVICES"] for share in made]


def gpus(monkeypatch, text, num_jobs=1):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    return resources.make(num_jobs, cores=range(8))


def test_gpus_are_shared_out_evenly():
    assert resources.make(2, num_gpus=8) == [
        Share({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (), 4),
        Share({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, (), 4),
    ]
    # Two of eight are left over: runs have as many replicas as each other.
    assert visible(*resources.make(3, num_gpus=8)) == ["0,1", "2,3", "4,5"]
    assert visible(*resources.make(1, num_gpus=2)) == ["0,1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2,5", ["2", "5"]),
        (" 2, 5", ["2", "5"]),
        ("GPU-8932f937-d72c,MIG-7/1/0", ["GPU-8932f937-d72c", "MIG-7/1/0"]),
        # CUDA reads up to the first that there cannot be.
        ("0,1,-1,3", ["0", "1"]),
    ],
)
def test_those_that_may_be_seen_are_shared_out(monkeypatch, text, expected):
    made = gpus(monkeypatch, text, num_jobs=2)
    assert visible(*made) == expected
    assert [share.num_gpus for share in made] == [1, 1]


@pytest.mark.parametrize("text", ["", "-1", "NoDevFiles", "-1,0"])
def test_without_a_gpu_that_may_be_seen_cores_are_shared(monkeypatch, text):
    made = gpus(monkeypatch, text, num_jobs=2)
    assert made == [Share({}, (0, 1, 2, 3), 0), Share({}, (4, 5, 6, 7), 0)]


def test_gpus_are_found_by_their_devices(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names = [f"nvidia{i}" for i in (10, 0, 2, "ctl", "-uvm", "0x")]
    monkeypatch.setattr(
        pathlib.Path, "glob", lambda self, _: [self / name for name in names]
    )
    assert visible(*resources.make(3)) == ["0", "2", "10"]


def test_one_run_at_a_time_has_all_cores():
    assert resources.make(1, num_gpus=0, cores=(0, 1)) == [Share({}, (), 0)]


def test_runs_at_a_time_have_cores_of_their_own():
    made = resources.make(2, num_gpus=0, cores=(1, 3, 5, 7, 9))
    assert [share.cores for share in made] == [(1, 3), (5, 7)]


def test_the_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {6, 4})
    made = resources.make(2, num_gpus=0)
    assert [share.cores for share in made] == [(4,), (6,)]


@pytest.mark.parametrize(
    ("num_gpus", "message"),
    [
        (2, "--jobs=3 runs at a time need as many GPUs, and 2 may be used"),
        (0, "--jobs=3 runs at a time need as many cores, and 1 may be used"),
    ],
)
def test_more_runs_at_a_time_than_devices_are_refused(num_gpus, message):
    with pytest.raises(RecipeError, match=message):
        resources.make(3, num_gpus=num_gpus, cores=(0,))
