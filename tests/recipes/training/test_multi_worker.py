"""Tests with two workers as two processes on one machine."""

import json
import os
import signal
import socket
import time

import numpy as np
import pytest

from recipes import imagenet
from recipes.classification.config import Config
from recipes.errors import RecipeError
from recipes.training import checkpoints
from recipes.training import multi_worker as cluster_lib
from tests.recipes.command_line import FAST
from tests.recipes.command_line import cluster
from tests.recipes.command_line import parse_flags
from tests.recipes.command_line import start
from tests.recipes.small_runs import rows

FLAGS = (*FAST, "--train_steps=24", "--norm=sync_bn", "--ema_decay=0.9")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for made in sockets:
        made.bind(("127.0.0.1", 0))
    ports = [made.getsockname()[1] for made in sockets]
    for made in sockets:
        made.close()
    return ports


def start_both(*flags):
    ports = free_ports(2)
    return [
        start(
            *flags, "--strategy=multi_worker", TF_CONFIG=cluster(ports, index)
        )
        for index in range(2)
    ]


def end(processes, seconds=120):
    """Waits for processes; returns exit codes, outputs and errors."""
    ends = [process.communicate(timeout=seconds) for process in processes]
    codes = [process.returncode for process in processes]
    return codes, *zip(*ends, strict=True)


def newest(folder):
    path = checkpoints.CheckpointManager(folder, 2).paths()[0]
    with np.load(path) as file:
        return path.name, {
            name: file[name]
            for name in file.files
            if name != checkpoints.METADATA_MEMBER
        }


def require_same_run(ours, theirs):
    for a, b in zip(rows(ours), rows(theirs), strict=True):
        for key in a:
            if key == "step" or "loss" in key or "accuracy" in key:
                assert a[key] == pytest.approx(b[key], rel=1e-5, abs=1e-6), key
    (name, arrays), (other, expected) = newest(ours), newest(theirs)
    assert name == other
    for key, value in arrays.items():
        np.testing.assert_allclose(
            value, expected[key], rtol=1e-4, atol=1e-5, err_msg=key
        )


def train_here(*flags):
    imagenet.run(parse_flags(Config, *flags, "--virtual_replicas=2"))


def test_run_resumes_like_one_process_after_a_worker_dies(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = (*FLAGS, "--save_every_steps=8", f"--workdir={two}")
    chief, other = start_both(*flags)
    deadline = time.monotonic() + 180
    save = two / "checkpoints" / "step_000000008.npz"
    while not save.exists():
        assert time.monotonic() < deadline and chief.poll() is None
        time.sleep(0.01)
    other.kill()
    killed = time.monotonic()
    (code, _), _, (errors, _) = end([chief, other], seconds=60)
    assert code == 1
    assert time.monotonic() - killed < 60
    assert "error: worker 0 of 2 lost another one" in errors
    assert "Start all of them again with the same command" in errors
    assert "Traceback" not in errors

    codes, (output, _), errors = end(start_both(*flags))
    assert codes == [0, 0], errors
    assert output.startswith("worker 0 of 2: waiting for 127.0.0.1:")
    assert "resuming after step" in output
    train_here(*FLAGS, "--save_every_steps=8", f"--workdir={one}")
    require_same_run(two, one)


@pytest.mark.long
def test_two_workers_evaluate_the_checkpoint_of_one_process(tmp_path):
    flags = (*FLAGS, f"--workdir={tmp_path}")
    train_here(*flags)
    codes, _, errors = end(
        start_both(*flags, "--mode=eval", "--checkpoint=best")
    )
    assert codes == [0, 0], errors
    found = json.loads((tmp_path / "eval.json").read_text())
    best = json.loads((tmp_path / "summary.json").read_text())["best"]
    assert found["eval/loss"] == pytest.approx(best["eval/loss"], rel=1e-5)
    assert found["eval/examples"] == 360


def test_workers_with_different_flags_are_an_error(tmp_path):
    ports = free_ports(2)
    flags = (*FAST, "--strategy=multi_worker", f"--workdir={tmp_path}")
    processes = [
        start(*flags, f"--seed={index}", TF_CONFIG=cluster(ports, index))
        for index in range(2)
    ]
    codes, _, errors = end(processes)
    assert codes == [1, 1]
    assert "the chief was started with other flags: seed is 0" in errors[1]


@pytest.mark.long
def test_sigterm_to_one_worker_saves_and_stops_both(tmp_path):
    flags = (*FAST, "--train_steps=20000", f"--workdir={tmp_path}")
    processes = start_both(*flags)
    while not (tmp_path / "checkpoints").exists():
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    codes, outputs, errors = end(processes)
    assert codes == [143, 143], errors
    interrupted = "another worker was interrupted: saved after step"
    assert interrupted in outputs[0]
    assert newest(tmp_path)[0] == f"step_{rows(tmp_path)[-1]['step']:09d}.npz"


def worker(task, addresses=("a:1",), kind="worker"):
    return json.dumps({"cluster": {kind: addresses}, "task": task})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "{}",
        worker({"type": "worker"}),
        worker({"type": "worker", "index": 1}),
        worker({"type": "ps", "index": 0}, kind="ps"),
    ],
)
def test_tf_config_without_workers_is_an_error(monkeypatch, text):
    monkeypatch.setitem(os.environ, "TF_CONFIG", text)
    with pytest.raises(RecipeError, match="TF_CONFIG, one for each process"):
        cluster_lib.read_workers("multi_worker")


def test_first_worker_is_the_default_chief(monkeypatch):
    cluster_of = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}
    for kind, index, expected in (
        ("chief", 0, 0),
        ("worker", 0, 1),
        ("worker", 1, 2),
    ):
        task = {"type": kind, "index": index}
        text = json.dumps({"cluster": cluster_of, "task": task})
        monkeypatch.setitem(os.environ, "TF_CONFIG", text)
        found = cluster_lib.read_workers("multi_worker")
        assert found.addresses == ("a:1", "b:1", "c:1")
        assert found.index == expected
        assert found.is_chief == (expected == 0)
    assert cluster_lib.read_workers("mirrored").is_chief
