"""Division of GPUs and cores among concurrent runs."""

import os
import pathlib

import pytest

from recipes.errors import RecipeError
from recipes.experiments import resources
from recipes.experiments.resources import Share


def visible(*shares):
    return [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares]


def test_gpus_are_divided_evenly():
    assert resources.make_shares(2, num_gpus=8) == [
        Share({"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (), 4),
        Share({"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, (), 4),
    ]
    # Two of eight are unused: all runs have the same number of replicas.
    shares = resources.make_shares(3, num_gpus=8)
    assert visible(*shares) == ["0,1", "2,3", "4,5"]
    assert visible(*resources.make_shares(1, num_gpus=2)) == ["0,1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 2, 5", ["2", "5"]),
        ("GPU-8932f937-d72c,MIG-7/1/0", ["GPU-8932f937-d72c", "MIG-7/1/0"]),
        # CUDA ignores an invalid entry and everything after it.
        ("0,1,-1,3", ["0", "1"]),
        ("", None),
        ("-1,0", None),
        ("NoDevFiles", None),
    ],
)
def test_visible_gpus_are_divided_or_else_the_cores(
    monkeypatch, text, expected
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    shares = resources.make_shares(2, cores=range(8))
    if expected is None:
        assert shares == [
            Share({}, (0, 1, 2, 3), 0),
            Share({}, (4, 5, 6, 7), 0),
        ]
    else:
        assert visible(*shares) == expected
        assert [share.num_gpus for share in shares] == [1, 1]


def test_gpus_are_detected_by_their_device_files(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    names = [f"nvidia{i}" for i in (10, 0, 2, "ctl", "-uvm", "0x")]
    monkeypatch.setattr(
        pathlib.Path, "glob", lambda self, _: [self / name for name in names]
    )
    assert visible(*resources.make_shares(3)) == ["0", "2", "10"]


def test_concurrent_runs_have_their_own_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 7, 5, 3, 1})
    shares = resources.make_shares(2, num_gpus=0)
    assert [share.cores for share in shares] == [(1, 3), (5, 7)]
    assert resources.make_shares(1, num_gpus=0) == [Share({}, (), 0)]


@pytest.mark.parametrize(("num_gpus", "num"), [(2, "2"), (0, "1")])
def test_more_runs_than_devices_are_refused(num_gpus, num):
    kind = "GPUs" if num_gpus else "cores"
    message = f"--jobs=3 .* at least 3 {kind}, but {num} are available"
    with pytest.raises(RecipeError, match=message):
        resources.make_shares(3, num_gpus=num_gpus, cores=(0,))
