"""Tests of the batch size and schedule of evaluations."""

import dataclasses
import pathlib
import re
import sys

import numpy as np
import pytest

from recipes.data import input_pipeline
from recipes.errors import RecipeError
from recipes.run_dir import environment
from recipes.training import distribution
from recipes.training import periodic_actions
from recipes.training import runner
from recipes.training.compiled_steps import CompiledSteps
from tests.recipes.small_runs import TASK
from tests.recipes.small_runs import make_config
from tests.recipes.small_runs import rows
from tests.recipes.small_runs import run

NUM_EVAL = 360


def evaluated(**flags):
    """Evaluates a newly initialized network; equal seeds give equal metrics."""
    config = make_config(**flags)
    replicas = distribution.make_strategy(config)
    made = input_pipeline.make_data(config, TASK)
    return CompiledSteps(
        runner.build_trainer(config, TASK, made, replicas), made, replicas
    ).evaluate()


@pytest.mark.parametrize("size", [1, 7, 100, 360, 1000])
def test_every_example_is_evaluated_once(size):
    made = input_pipeline.make_data(make_config(eval_batch_size=size), TASK)
    batches = list(made.evaluation().as_numpy_iterator())
    assert len(batches) == made.num_eval_batches == -(-NUM_EVAL // size)
    images, labels, weights = map(np.concatenate, zip(*batches, strict=True))
    assert len(images) == len(batches) * size
    assert weights[:NUM_EVAL].all() and not weights[NUM_EVAL:].any()
    by_default = list(
        input_pipeline.make_data(make_config(), TASK).evaluation()
    )
    expected = np.concatenate([batch[0] for batch in by_default])
    np.testing.assert_array_equal(images[:NUM_EVAL], expected[:NUM_EVAL])


def test_eval_batch_size_does_not_change_training_batches():
    ours = next(
        iter(
            input_pipeline.make_data(
                make_config(eval_batch_size=8), TASK
            ).train(0)
        )
    )
    theirs = next(iter(input_pipeline.make_data(make_config(), TASK).train(0)))
    for column, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(column, other)


@pytest.fixture(scope="module")
def expected():
    """Metrics of one replica with the default batch size."""
    return evaluated(norm="bn")


@pytest.mark.parametrize(
    ("size", "num_replicas"), [(64, 1), (40, 2), (6, 2), (1000, 4)]
)
def test_metrics_do_not_depend_on_the_batch_size(expected, size, num_replicas):
    found = evaluated(
        norm="bn", num_replicas=num_replicas, eval_batch_size=size
    )
    assert found["examples"] == expected["examples"] == NUM_EVAL
    # Accuracies are quotients of integers.
    for name in ("accuracy", "top5_accuracy"):
        assert found[name] == expected[name]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["loss"] > 1


def test_indivisible_eval_batch_is_an_error():
    message = (
        "--eval_batch_size=7 cannot be split evenly over 2 replicas: choose a "
        "multiple of 2."
    )
    with pytest.raises(RecipeError) as caught:
        distribution.make_strategy(
            make_config(eval_batch_size=7, num_replicas=2)
        )
    assert str(caught.value) == message
    distribution.make_strategy(make_config(eval_batch_size=7))
    with pytest.raises(RecipeError, match="at least 1.*eval_batch_size=0"):
        make_config(eval_batch_size=0)


def test_eval_every_steps_evaluates_at_these_steps(tmp_path):
    # An epoch has 22 steps: by epochs, only the last step is evaluated.
    flags = {"train_steps": 10, "eval_every_steps": 4, "eval_batch_size": 100}
    summary, written = run(tmp_path, **flags)
    found = {row["step"]: row for row in written if "eval/accuracy" in row}
    assert list(found) == [4, 8, 10]
    assert all(row["eval/examples"] == NUM_EVAL for row in found.values())
    assert found[4]["epoch"] == pytest.approx(4 / 22, abs=1e-4)
    # Each has a checkpoint, so that the best one can be restored.
    saves = sorted(p.name for p in (tmp_path / "checkpoints").glob("step_*"))
    assert "step_000000008.npz" in saves and "step_000000010.npz" in saves
    assert summary["best"]["step"] in found

    # Evaluations do not change training.
    run(tmp_path / "rarely", train_steps=10)
    ours, theirs = (
        [row["train/loss"] for row in each if "train/loss" in row]
        for each in (written, rows(tmp_path / "rarely"))
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [10, 20, 25]),
        ({"eval_every_epochs": 2}, [20, 25]),
        ({"eval_every_steps": 7}, [7, 14, 21, 25]),
        # Steps override epochs.
        ({"eval_every_steps": 7, "eval_every_epochs": 2}, [7, 14, 21, 25]),
        ({"eval_every_steps": 25}, [25]),
        ({"eval_every_steps": 99}, [25]),
        ({"eval_every_steps": 7, "mode": "train"}, []),
    ],
)
def test_schedule_of_evaluations(flags, expected):
    # Long executions and rare logging: only evaluations end an execution.
    config = make_config(
        **flags, steps_per_execution=100, log_every_steps=100, train_steps=25
    )
    fake = dataclasses.make_dataclass("Data", ["num_steps", "steps_per_epoch"])
    made = periodic_actions.make_step_schedule(config, fake(25, 10))
    step, found = 0, []
    while step < 25:
        step = made.next_stop(step)
        if made.evaluates_after(step):
            assert made.saves_after(step)
            found.append(step)
    assert found == expected


def test_evaluating_every_0_steps_is_an_error():
    with pytest.raises(RecipeError, match="at least 1.*eval_every_steps=0"):
        make_config(eval_every_steps=0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak")
def test_peak_memory_is_in_bytes():
    ballast = np.ones(2**24)
    del ballast
    text = pathlib.Path("/proc/self/status").read_text()
    kibibytes = int(re.search(r"VmHWM:\s+(\d+) kB", text)[1])
    # Both are counted in pages, by several threads.
    expected = pytest.approx(kibibytes * 1024, rel=0.02)
    assert environment.peak_memory_bytes() == expected
