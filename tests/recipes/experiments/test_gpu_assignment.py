"""Division of GPUs and cores among concurrent runs."""

import os
import pathlib

import pytest

from recipes.errors import RecipeError
from recipes.experiments import gpu_assignment
from recipes.experiments.gpu_assignment import Share


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 7, 5, 3, 1})


def make_shares(num_jobs, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return gpu_assignment.make_shares(num_jobs)


@pytest.mark.parametrize(
    ("num_jobs", "text", "expected"),
    [
        (2, "0,1,2,3", ["0,1", "2,3"]),
        # Two of eight are unused: all runs have the same number of replicas.
        (3, "0,1,2,3,4,5,6,7", ["0,1", "2,3", "4,5"]),
        (1, " 2, 5", ["2,5"]),
        (2, "GPU-8932f937-d72c,MIG-7/1/0", ["GPU-8932f937-d72c", "MIG-7/1/0"]),
        # CUDA ignores an invalid entry and everything after it.
        (2, "0,1,-1,3", ["0", "1"]),
    ],
)
def test_visible_gpus_are_divided_evenly(monkeypatch, num_jobs, text, expected):
    shares = make_shares(num_jobs, monkeypatch, text)
    assert shares == [
        Share({"CUDA_VISIBLE_DEVICES": names}, (), names.count(",") + 1)
        for names in expected
    ]


@pytest.mark.parametrize("text", ["", "-1,0", "NoDevFiles"])
def test_concurrent_runs_without_gpus_have_their_own_cores(monkeypatch, text):
    shares = make_shares(2, monkeypatch, text)
    assert shares == [Share({}, (1, 3), 0), Share({}, (5, 7), 0)]
    assert gpu_assignment.make_shares(1) == [Share({}, (), 0)]


def test_gpus_are_detected_by_their_device_files(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names = [f"nvidia{i}" for i in (10, 0, 2, "ctl", "-uvm", "0x")]
    monkeypatch.setattr(
        pathlib.Path, "glob", lambda self, _: [self / name for name in names]
    )
    shares = gpu_assignment.make_shares(3)
    found = [list(s.environment.values()) for s in shares]
    assert found == [["0"], ["2"], ["10"]]


@pytest.mark.parametrize(
    ("text", "devices"), [("0,1", "6 GPUs, but 2"), ("", "6 cores, but 5")]
)
def test_more_runs_than_devices_are_refused(monkeypatch, text, devices):
    message = f"--jobs=6 .* at least {devices} are available"
    with pytest.raises(RecipeError, match=message):
        make_shares(6, monkeypatch, text)
